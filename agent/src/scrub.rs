//! Cuts out of a text what may open a door: private keys, tokens, passwords.
//!
//! What is saved or packed comes from a list of files and programs in which
//! none of these belong; this is the second lock, for what a program may have
//! said by mistake.

/// What is in the place of what was cut out.
const CUT: &str = "[redacted]";
/// `-----BEGIN ` in base64, as kubeconfigs hold keys and certificates.
const PEM_IN_BASE64: &str = "LS0tLS1CRUdJTi";
/// A word or an argument that ends so is followed by a secret.
const NAMES: [&str; 8] = [
    "token",
    "sig",
    "signature",
    "password",
    "passwd",
    "secret",
    "key-data",
    "authorization",
];

/// The text without private keys (PEM, also in base64 or in one line), bearer
/// and bootstrap tokens, JSON Web Tokens, passwords in URLs, and the values of
/// `token`, `password` and their like.
pub fn scrub(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        loop {
            if in_key {
                match rest.find("-----END ") {
                    Some(end) => {
                        let after = &rest[end + "-----END ".len()..];
                        let end = after.find("-----").map_or(after.len(), |at| at + 5);
                        rest = &after[end..];
                        in_key = false;
                    }
                    None => break,
                }
            }
            match key_begins(rest) {
                Some(begin) => {
                    words(&rest[..begin], &mut clean);
                    clean.push_str(CUT);
                    rest = &rest[begin + "-----BEGIN ".len()..];
                    in_key = true;
                }
                None => {
                    words(rest, &mut clean);
                    break;
                }
            }
        }
    }
    clean
}

/// Where a private key begins in a line. RFC 7468, section 10.
fn key_begins(line: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(begin) = line[from..].find("-----BEGIN ") {
        let begin = from + begin;
        let label = &line[begin + "-----BEGIN ".len()..];
        if label.split("-----").next()?.ends_with("PRIVATE KEY") {
            return Some(begin);
        }
        from = begin + 1;
    }
    None
}

/// A word ends at blanks, quotes, commas, brackets and, as a name, at `=` or
/// `:`.
fn words(line: &str, clean: &mut String) {
    let mut secret_next = false;
    // Of a URL: `//USER`, then a colon.
    let mut user = false;
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let end = |is: fn(char) -> bool| rest.find(is).unwrap_or(rest.len());
        if is_boundary(first) {
            let (blank, after) = rest.split_at(end(|c| !is_boundary(c)));
            // A secret is on its name's line, and in its member of an object.
            if blank.contains(['\n', ',', '}', ')']) {
                secret_next = false;
            }
            user &= blank == ":";
            clean.push_str(blank);
            rest = after;
            continue;
        }
        let (word, after) = rest.split_at(end(is_boundary));
        rest = after;
        let lower = word.to_ascii_lowercase();
        let names = |text: &str| NAMES.iter().any(|name| text.ends_with(name));
        if secret_next && lower != "bearer" && lower != "basic" {
            clean.push_str(CUT);
            secret_next = false;
        } else if is_secret(word) {
            clean.push_str(CUT);
        } else {
            match word.rsplit_once('@').filter(|_| user) {
                Some((_, host)) => clean.push_str(&format!("{CUT}@{host}")),
                None => clean.push_str(word),
            }
            user = word.starts_with("//");
            let assigned = after.trim_start_matches(['"', '\'', '\\']);
            let assigned = assigned.starts_with(['=', ':']);
            secret_next = lower == "bearer" || secret_next || (names(&lower) && assigned);
        }
    }
}

fn is_boundary(c: char) -> bool {
    c.is_whitespace() || "\"'`,;=(){}[]<>\\".contains(c) || c == ':'
}

fn is_secret(word: &str) -> bool {
    word.contains(PEM_IN_BASE64) || (word.starts_with("eyJ") && word.len() > 40) || is_token(word)
}

/// `ID.SECRET`. Source: Kubernetes documentation, "Authenticating with
/// Bootstrap Tokens".
fn is_token(word: &str) -> bool {
    let plain = |part: &str, length| {
        part.len() == length
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    word.split_once('.')
        .is_some_and(|(id, secret)| plain(id, 6) && plain(secret, 16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_are_cut_out_and_the_rest_stays() {
        for (text, clean) in [
            (
                "plain: text, 10.0.0.1:6443\n",
                "plain: text, 10.0.0.1:6443\n",
            ),
            (
                "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----\nb\n",
                "a\n[redacted]\nb\n",
            ),
            (
                "key=\"-----BEGIN EC PRIVATE KEY-----\\nMH\\n-----END EC PRIVATE KEY-----\\n\" end\n",
                "key=\"[redacted]\\n\" end\n",
            ),
            ("-----BEGIN PRIVATE KEY-----\nMIIE", "[redacted]"),
            (
                "Authorization: Bearer abc.def\nnext",
                "Authorization: Bearer [redacted]\nnext",
            ),
            ("token: abcdef.0123456789abcdef\n", "token: [redacted]\n"),
            ("joined by abcdef.0123456789abcdef", "joined by [redacted]"),
            (
                "{\"token\":\"x1\",\"a\":\"b\"}",
                "{\"token\":\"[redacted]\",\"a\":\"b\"}",
            ),
            ("--password=hunter2 --v=2", "--password=[redacted] --v=2"),
            (
                "proxy http://user:pa55@proxy:3128/ used",
                "proxy http://user:[redacted]@proxy:3128/ used",
            ),
            (
                "    client-key-data: LS0tLS1CRUdJTiBSU0E=",
                "    client-key-data: [redacted]=",
            ),
            ("the token has expired", "the token has expired"),
            ("unit: getty@tty1.service", "unit: getty@tty1.service"),
        ] {
            assert_eq!(scrub(text), clean);
        }
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert_eq!(scrub(certificate), certificate);
    }

    proptest! {
        /// Wherever a secret is, it is not in what comes out.
        #[test]
        fn no_secret_comes_through(before in ".{0,40}", after in "[ \n\"',].{0,40}") {
            let key = "MIIEowIBAAKCAQEAsecret";
            let pem = format!("-----BEGIN RSA PRIVATE KEY-----\n{key}\n-----END RSA PRIVATE KEY-----");
            for secret in [pem.as_str(), "abcdef.0123456789abcdef", "Bearer s3cr3t-t0k3n"] {
                let clean = scrub(&format!("{before} {secret}{after}"));
                for part in [key, "0123456789abcdef", "s3cr3t-t0k3n"] {
                    let own = before.contains(part) || after.contains(part);
                    prop_assert!(own || !clean.contains(part), "{clean}");
                }
            }
        }
    }
}
