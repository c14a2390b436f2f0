//! The bytes behind every address, downloaded once and forgotten.

use anyhow::Result;

use super::online::all_or_none;
use crate::artifacts::{Algorithm, Entry};
use crate::commands::progress::Progress;
use crate::commands::terminal;
use crate::mirror::{Mirrors, Trouble};

/// Looks at the bytes behind every address.
pub async fn all(client: &Mirrors, entries: &[Entry]) -> Result<()> {
    let mut progress = Progress::new();
    let all: Vec<(&Entry, &String)> = entries
        .iter()
        .flat_map(|entry| entry.urls.iter().map(move |url| (entry, url)))
        .collect();
    let mut results = Vec::new();
    for (i, (entry, url)) in all.iter().enumerate() {
        let done = |size| {
            progress.tell(|| {
                let of = entry
                    .size
                    .map_or(String::new(), |all| format!(" of {}", mib(all)));
                let (n, name) = (all.len(), &entry.name);
                format!("verifying {name}, {} of {n}: {}{of} MiB", i + 1, mib(size))
            });
        };
        let found = client.hash(url, Algorithm::of(&entry.digest), done).await;
        progress.clear();
        results.push(match found {
            Err(trouble) => Err(trouble),
            Ok((digest, _)) if digest != entry.digest => Err(Trouble::Refused(format!(
                "{url}: has {digest}, and {} was published",
                entry.digest
            ))),
            Ok((_, size)) if entry.size.is_some_and(|said| said != size) => {
                Err(Trouble::Refused(format!(
                    "{url}: has {size} bytes, and {} were to be expected",
                    entry.size.unwrap_or_default()
                )))
            }
            Ok((_, size)) => {
                terminal::say(&format!("kgen: verified {url}, {size} bytes"));
                Ok(())
            }
        });
    }
    all_or_none(results).map(drop)
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1_048_576.0)
}
