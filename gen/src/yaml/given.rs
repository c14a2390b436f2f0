//! Values that may be kept elsewhere: `@PATH` is the content of a file,
//! `env:NAME` a variable of the environment, anything else itself. A value that
//! begins with `@` itself is written `@@…`.

use super::read::{At, Reader};
use super::tree::Node;
use crate::outside::Outside;
use crate::secret::Secret;

/// The bytes of a value, and whether they were kept elsewhere.
#[derive(Debug, Clone)]
pub struct Given {
    /// The bytes.
    pub bytes: Secret,
    /// Whether they came from a file or the environment.
    pub referred: bool,
}

impl Reader {
    /// The bytes that a value is or refers to. What is typed inline is not
    /// shown in findings if `secret`.
    pub fn given(&mut self, node: &Node, path: &str, secret: bool) -> Option<At<Given>> {
        // A reference may be shown, and nothing else.
        let is_reference = |text: &str| {
            text.starts_with("env:") || text.starts_with('@') && !text.starts_with("@@")
        };
        if secret && !node.text().is_some_and(is_reference) {
            self.hide(&node.span);
        }
        let typed = self.text(node, path)?;
        let text = typed.value;
        let bytes = if let Some(literal) = text.strip_prefix("@@") {
            Ok((Secret::from(format!("@{literal}")), false))
        } else if let Some(file) = text.strip_prefix('@') {
            self.sought()
                .and_then(|outside| outside.file(file))
                .map(|bytes| (bytes, true))
        } else if let Some(name) = text.strip_prefix("env:") {
            self.sought()
                .and_then(|outside| outside.variable(name))
                .map(|bytes| (bytes, true))
        } else {
            Ok((Secret::from(text), false))
        };
        match bytes {
            Ok((bytes, referred)) => Some(At {
                value: Given { bytes, referred },
                span: typed.span,
                path: typed.path,
            }),
            Err(why) => {
                self.find(&node.span, format!("{path}: {why}"), None);
                None
            }
        }
    }

    /// A secret of one line, without the line's end.
    pub fn secret(&mut self, node: &Node, path: &str) -> Option<At<Secret>> {
        let given = self.given(node, path, true)?;
        let line = given.value.bytes.expose_text().map(|text| {
            let text = text.strip_suffix('\n').unwrap_or(text);
            text.strip_suffix('\r').unwrap_or(text).to_owned()
        });
        match line {
            Some(line) if !line.is_empty() && !line.chars().any(char::is_control) => Some(At {
                value: Secret::from(line),
                span: given.span,
                path: given.path,
            }),
            _ => {
                let help = "a secret is one line of text, given as it is, as @FILE or as env:NAME";
                let message = format!("{path}: is empty, or not one line of text");
                self.find(&node.span, message, Some(help.to_owned()));
                None
            }
        }
    }

    /// The bytes of a file beside the settings.
    pub fn local_file(&mut self, node: &Node, path: &str) -> Option<At<Secret>> {
        let typed = self.text(node, path)?;
        match self.sought().and_then(|outside| outside.file(&typed.value)) {
            Ok(value) => Some(At {
                value,
                span: typed.span,
                path: typed.path,
            }),
            Err(why) => {
                self.find(&node.span, format!("{path}: {why}"), None);
                None
            }
        }
    }

    /// Where to look for what is referred to; text alone refers to nothing.
    fn sought(&self) -> Result<&Outside, String> {
        self.outside()
            .ok_or_else(|| "nothing can be referred to from here".to_owned())
    }
}
