//! Asking a program of the machine for its version.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::{Code, Context, Error, Result};

/// How long a program may take to say its version.
const LIMIT: Duration = Duration::from_secs(10);

/// What `PROGRAM --version` prints.
///
/// # Errors
///
/// [`Code::Disk`]: it cannot be executed, fails, or does not end.
pub async fn of(program: &Path) -> Result<String> {
    let doing = || format!("asking {} for its version", program.display());
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null());
    // One that hangs costs a thread that waits, and is not asked again.
    let asked = tokio::task::spawn_blocking(move || command.output());
    let output = tokio::time::timeout(LIMIT, asked)
        .await
        .context(Code::Disk, doing)?
        .context(Code::Disk, doing)?
        .context(Code::Disk, doing)?;
    if !output.status.success() {
        return Err(Error::new(
            Code::Disk,
            format!("{}: {}", doing(), output.status),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_says_its_version_or_why_it_does_not() {
        let text = of(Path::new("/bin/bash")).await.unwrap();
        assert!(text.contains("version"), "{text}");
        let error = of(Path::new("/nonexistent")).await.unwrap_err();
        assert!(error.story().contains("/nonexistent"), "{}", error.story());
        assert!(of(Path::new("/bin/false")).await.is_err());
    }
}
