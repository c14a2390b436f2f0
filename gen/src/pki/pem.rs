//! PEM (RFC 7468): base64 between lines with dashes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Encodes `der`; the result is overwritten when it goes, as it may be a key.
pub fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Room for everything at once: a growing String leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(
        body.len() + body.len() / 64 + 2 * label.len() + 40,
    ));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|b| char::from(*b)));
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// The first block whose label `wanted` accepts: the label and the bytes.
pub fn decode(text: &str, wanted: impl Fn(&str) -> bool) -> Option<(String, Zeroizing<Vec<u8>>)> {
    let mut lines = text.lines().map(str::trim);
    loop {
        let begin = lines
            .by_ref()
            .find_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"))?;
        let mut body = Zeroizing::new(String::with_capacity(text.len()));
        for line in lines
            .by_ref()
            .take_while(|line| !line.starts_with("-----END "))
        {
            body.push_str(line);
        }
        if wanted(begin) {
            let der = STANDARD.decode(body.as_bytes()).ok()?;
            return Some((begin.to_owned(), Zeroizing::new(der)));
        }
    }
}

/// The bytes of every block of a label, in their order; none if one of them is
/// no base64.
pub fn decode_all(text: &str, label: &str) -> Option<Vec<Vec<u8>>> {
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while lines.by_ref().any(|line| line == begin) {
        let body: String = lines.by_ref().take_while(|line| *line != end).collect();
        blocks.push(STANDARD.decode(body).ok()?);
    }
    Some(blocks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(der in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = encode("PRIVATE KEY", &der);
            let (label, back) = decode(&text, |label| label.ends_with("KEY")).unwrap();
            prop_assert_eq!(label, "PRIVATE KEY");
            prop_assert_eq!(&*back, &der);
            prop_assert!(text.lines().all(|line| line.len() <= 64));
        }
    }

    #[test]
    fn every_block_of_a_label_is_found() {
        let one = encode("CERTIFICATE", &[1, 2]).to_string();
        let two = encode("CERTIFICATE", &[3]).to_string();
        let text = format!("text\n{one}{}more\n{two}", *encode("OTHER", &[9]));
        let all = decode_all(&text, "CERTIFICATE").unwrap();
        assert_eq!(all, [vec![1, 2], vec![3]]);
        let bad = "-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n";
        assert!(decode_all(bad, "CERTIFICATE").is_none());
    }

    #[test]
    fn other_blocks_are_passed_over() {
        let text = "-----BEGIN EC PARAMETERS-----\nAAAA\n-----END EC PARAMETERS-----\n\
                    -----BEGIN EC PRIVATE KEY-----\nAQID\n-----END EC PRIVATE KEY-----\n";
        let (label, der) = decode(text, |label| label.ends_with("PRIVATE KEY")).unwrap();
        assert_eq!(
            (label.as_str(), der.as_slice()),
            ("EC PRIVATE KEY", &[1, 2, 3][..])
        );
        assert!(decode("no pem", |_| true).is_none());
    }
}
