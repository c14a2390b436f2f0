//! Documents that are kept until all of them are there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use anyhow::{Result, anyhow};
use zeroize::Zeroizing;

/// Documents by the name of their machine or pool.
#[derive(Default)]
pub struct Documents(Mutex<BTreeMap<String, Zeroizing<Vec<u8>>>>);

impl Documents {
    /// Keeps one; threads that render may do so at once.
    ///
    /// # Errors
    ///
    /// Another thread panicked.
    pub fn keep(&self, name: &str, document: &[u8]) -> Result<()> {
        let mut documents = self.0.lock().map_err(|_| anyhow!("a thread panicked"))?;
        documents.insert(name.to_owned(), Zeroizing::new(document.to_vec()));
        Ok(())
    }

    /// All of them.
    ///
    /// # Errors
    ///
    /// A thread that kept one panicked.
    pub fn all(self) -> Result<BTreeMap<String, Zeroizing<Vec<u8>>>> {
        self.0
            .into_inner()
            .map_err(|_| anyhow!("a thread panicked"))
    }
}

/// Keys are in them.
impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Documents(…)")
    }
}
