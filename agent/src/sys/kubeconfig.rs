//! Kubeconfigs: which server, which authority, and by what one proves oneself.
//!
//! Source: Kubernetes API, client-go/tools/clientcmd/api/v1 Config.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::error::{Code, Error, Result};
use crate::sys::api::Api;
use crate::sys::http::Pem;
use crate::sys::root::Root;

/// A bootstrap token, `ID.SECRET`; never shown.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// The token itself, for the one header that it goes into.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// By what one proves oneself to the API server.
#[derive(Debug, Clone)]
pub enum User {
    /// A certificate and its key, both PEM, in the kubeconfig itself.
    Embedded {
        /// The certificate.
        certificate: Vec<u8>,
        /// Its key.
        key: Pem,
    },
    /// Files with a certificate and its key, PEM; one file may hold both.
    Files {
        /// The path of the certificate.
        certificate: String,
        /// The path of its key.
        key: String,
    },
    /// A bootstrap token.
    Token(Token),
}

/// What is used of a kubeconfig.
#[derive(Debug)]
pub struct Kubeconfig {
    /// `https://HOST:PORT`.
    pub server: String,
    /// The authority's certificate, PEM.
    pub authority: Vec<u8>,
    /// Who asks.
    pub user: User,
}

impl Kubeconfig {
    /// Reads a kubeconfig with one cluster, whose authority is embedded, and
    /// one user.
    ///
    /// # Errors
    ///
    /// [`Code::IdentityCert`]: anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let file: Value = serde_yaml::from_str(text).map_err(|_| unreadable())?;
        let cluster = file.pointer("/clusters/0/cluster");
        let cluster = cluster.ok_or_else(|| lacks("cluster"))?;
        let user = file.pointer("/users/0/user").ok_or_else(|| lacks("user"))?;
        let text = |of: &Value, what: &str| of[what].as_str().map(str::to_owned);
        let decode = |of: &Value, what: &str| {
            let bytes = of[what].as_str().and_then(|text| BASE64.decode(text).ok());
            bytes
                .filter(|bytes| !bytes.is_empty())
                .ok_or_else(|| lacks(what))
        };
        let files = text(user, "client-certificate").zip(text(user, "client-key"));
        let user = match (text(user, "token"), files) {
            (Some(token), _) => User::Token(Token(token)),
            (None, Some((certificate, key))) => User::Files { certificate, key },
            (None, None) => User::Embedded {
                certificate: decode(user, "client-certificate-data")?,
                key: Pem(decode(user, "client-key-data")?),
            },
        };
        Ok(Self {
            server: text(cluster, "server").ok_or_else(|| lacks("server"))?,
            authority: decode(cluster, "certificate-authority-data")?,
            user,
        })
    }

    /// The certificate and the key, wherever they are.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: a file cannot be read; [`Code::IdentityCert`]: the user
    /// has a token instead.
    pub fn identity(&self, root: &Root) -> Result<Pem> {
        match &self.user {
            User::Embedded { certificate, key } => {
                Ok(Pem([certificate.as_slice(), b"\n", &key.0].concat()))
            }
            User::Files { certificate, key } if certificate == key => {
                Ok(Pem(root.read(certificate)?))
            }
            User::Files { certificate, key } => Ok(Pem([
                root.read(certificate)?,
                b"\n".to_vec(),
                root.read(key)?,
            ]
            .concat())),
            User::Token(_) => Err(lacks("client certificate")),
        }
    }

    /// The API as this user.
    ///
    /// # Errors
    ///
    /// As [`Kubeconfig::identity`], and [`Code::Tls`]: bad PEM.
    pub fn api(&self, root: &Root) -> Result<Api> {
        match &self.user {
            User::Token(token) => Api::with_token(&self.server, &self.authority, token.clone()),
            _ => Api::new(&self.server, &self.authority, Some(self.identity(root)?)),
        }
    }
}

/// The kubeconfig with another identity of its user, all else as it was; in
/// JSON, which is YAML.
///
/// # Errors
///
/// [`Code::IdentityCert`]: it is no kubeconfig with a user.
pub fn with_user(text: &str, user: &User) -> Result<Pem> {
    let mut file: Value = serde_yaml::from_str(text).map_err(|_| unreadable())?;
    let fields = file["users"]
        .get_mut(0)
        .and_then(|named| named.get_mut("user")?.as_object_mut())
        .ok_or_else(|| lacks("user"))?;
    for old in ["client-certificate", "client-key"] {
        fields.remove(old);
        fields.remove(&format!("{old}-data"));
    }
    let (certificate, key) = match user {
        User::Embedded { certificate, key } => (
            ("client-certificate-data", BASE64.encode(certificate)),
            ("client-key-data", BASE64.encode(&key.0)),
        ),
        User::Files { certificate, key } => (
            ("client-certificate", certificate.clone()),
            ("client-key", key.clone()),
        ),
        User::Token(_) => return Err(lacks("place for a token")),
    };
    for (field, value) in [certificate, key] {
        fields.insert(field.to_owned(), json!(value));
    }
    Ok(Pem(format!("{file:#}\n").into_bytes()))
}

/// The reader's own error would show the lines around the place, keys too.
fn unreadable() -> Error {
    Error::new(Code::IdentityCert, "the kubeconfig is not readable")
}

fn lacks(what: &str) -> Error {
    Error::new(Code::IdentityCert, format!("the kubeconfig has no {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(user: &str) -> String {
        format!(
            "clusters: [{{name: c, cluster: {{server: 'https://10.0.0.1:6443', \
             certificate-authority-data: {}}}}}]\n\
             users: [{{name: u, user: {{{user}}}}}]\ncurrent-context: u@c\n",
            BASE64.encode("CA")
        )
    }

    #[test]
    fn users_have_certificates_files_or_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        root.write_atomic("/pair.pem", b"PAIR", 0o600).unwrap();
        let identity = |user: &str| Kubeconfig::parse(&text(user)).unwrap().identity(&root);
        let files = "client-certificate: /pair.pem, client-key: /pair.pem";
        assert_eq!(identity(files).unwrap().0, b"PAIR");
        let data = format!(
            "client-certificate-data: {}, client-key-data: {}",
            BASE64.encode("CERT"),
            BASE64.encode("KEY")
        );
        assert_eq!(identity(&data).unwrap().0, b"CERT\nKEY");
        let token = Kubeconfig::parse(&text("token: abcdef.0123456789abcdef")).unwrap();
        assert!(token.identity(&root).is_err());
        assert!(!format!("{token:?}").contains("0123456789"));
        for bad in ["", "client-certificate: /pair.pem", "client-key-data: '!'"] {
            assert!(Kubeconfig::parse(&text(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn another_identity_leaves_all_else() {
        let data = format!(
            "client-certificate-data: {}, client-key-data: {}",
            BASE64.encode("CERT"),
            BASE64.encode("KEY")
        );
        let files = User::Files {
            certificate: "/a".to_owned(),
            key: "/b".to_owned(),
        };
        let changed = with_user(&text(&data), &files).unwrap();
        let changed = String::from_utf8(changed.0).unwrap();
        assert!(!changed.contains("-data\": \"Q0VSV"), "{changed}");
        assert!(
            changed.contains("\"current-context\": \"u@c\""),
            "{changed}"
        );
        let read = Kubeconfig::parse(&changed).unwrap();
        assert_eq!(read.server, "https://10.0.0.1:6443");
        assert!(
            matches!(read.user, User::Files { certificate, key } if certificate == "/a" && key == "/b")
        );
    }
}
