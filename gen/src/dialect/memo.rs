//! What was written once and comes again: in a cluster of thousands every
//! machine gets the same units, packed and quoted the same way.
//!
//! Only files that anybody may read are kept, so no key lives here.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;

use crate::format::Format;
use crate::plan::{Content, PlannedFile};

/// So many texts are kept, the first ones: what is common to all machines is
/// among the files of the first few.
const KEPT: usize = 192;

thread_local! {
    static MEMO: RefCell<HashMap<u64, Kept>> = RefCell::default();
}

struct Kept {
    format: Format,
    path: String,
    mode: u32,
    content: Vec<u8>,
    text: String,
}

impl Kept {
    fn is_of(&self, file: &PlannedFile, format: Format) -> bool {
        self.format == format
            && self.path == file.path
            && self.mode == file.mode.bits()
            && self.content == file.content.bytes()
    }
}

/// The text of `file` in a language: `make`'s, or what it made before.
pub fn text(
    file: &PlannedFile,
    format: Format,
    make: impl FnOnce(&PlannedFile) -> Result<String>,
) -> Result<String> {
    // Owners are not compared.
    let (Content::Public(content), None) = (&file.content, &file.owner) else {
        return make(file);
    };
    let mut hasher = DefaultHasher::new();
    (format.as_str(), &file.path, file.mode.bits(), content).hash(&mut hasher);
    let key = hasher.finish();
    let known = MEMO.with_borrow(|memo| {
        let kept = memo.get(&key).filter(|kept| kept.is_of(file, format));
        kept.map(|kept| kept.text.clone())
    });
    if let Some(text) = known {
        return Ok(text);
    }
    let text = make(file)?;
    MEMO.with_borrow_mut(|memo| {
        if memo.len() < KEPT {
            memo.entry(key).or_insert_with(|| Kept {
                format,
                path: file.path.clone(),
                mode: file.mode.bits(),
                content: content.as_bytes().to_vec(),
                text: text.clone(),
            });
        }
    });
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Content;
    use crate::secret::Secret;

    #[test]
    fn the_same_file_is_written_once_and_another_is_not_mistaken_for_it() {
        let file = |path: &str, text: &str| PlannedFile::public(path, text.to_owned());
        let text = |file: &PlannedFile, made: &str| {
            text(file, Format::Coreos, |_| Ok(made.to_owned())).unwrap()
        };
        assert_eq!(text(&file("/a", "x"), "first"), "first");
        assert_eq!(text(&file("/a", "x"), "second"), "first");
        assert_eq!(text(&file("/b", "x"), "third"), "third");
        assert_eq!(text(&file("/a", "y"), "fourth"), "fourth");
    }

    #[test]
    fn secrets_are_not_kept() {
        let mut file = PlannedFile::public("/secret", "");
        file.content = Content::Secret(Secret::from("key".to_owned()));
        for made in ["first", "second"] {
            let text = text(&file, Format::Coreos, |_| Ok(made.to_owned()));
            assert_eq!(text.unwrap(), made);
        }
    }
}
