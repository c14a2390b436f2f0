//! Programs of the machine that are asked something: with a time limit, and
//! no more kept of what they say than is asked for.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often one that runs is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What a program says to both of its outputs, the last `keep` bytes of it;
/// why it could not be run, where that is so. One that takes longer than
/// `limit` is killed. Waits for it: call it where waiting is allowed.
pub fn output(command: &[&str], limit: Duration, keep: u64) -> String {
    match run(command, limit, keep) {
        Ok(text) => text,
        Err(error) => format!("{}: {error}\n", command.join(" ")),
    }
}

fn run(command: &[&str], limit: Duration, keep: u64) -> io::Result<String> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(String::new());
    };
    // A file takes whatever comes; a pipe would have to be read meanwhile.
    let mut said = tempfile::tempfile()?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said.try_clone()?)
        .spawn()?;
    let mut late = "";
    if wait(&mut child, limit)?.is_none() {
        late = "\n[it took too long, and was ended]\n";
    }
    Ok(tail(&mut said, keep)? + late)
}

/// How it ended; none where it took too long and was killed.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}

/// What a program makes of `input`. Waits for it.
///
/// # Errors
///
/// It cannot be run, takes longer than `limit`, or does not succeed.
pub fn filter(command: &[&str], input: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (mut given, mut made) = (tempfile::tempfile()?, tempfile::tempfile()?);
    given.write_all(input)?;
    given.seek(SeekFrom::Start(0))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(given)
        .stdout(made.try_clone()?)
        .stderr(Stdio::null())
        .spawn()?;
    match wait(&mut child, limit)? {
        Some(status) if status.success() => {}
        Some(status) => return Err(io::Error::other(status.to_string())),
        None => return Err(io::ErrorKind::TimedOut.into()),
    }
    made.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    made.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The last `keep` bytes of a file, from the beginning of a line.
///
/// # Errors
///
/// It cannot be read.
pub fn tail(file: &mut File, keep: u64) -> io::Result<String> {
    let length = file.seek(SeekFrom::End(0))?;
    let start = length.saturating_sub(keep);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(keep).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    if start == 0 {
        return Ok(text.into_owned());
    }
    let from = text.find('\n').map_or(0, |end| end + 1);
    Ok(format!("[{start} bytes before]\n{}", &text[from..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn both_outputs_are_kept_and_their_end_when_they_are_long() {
        let said = output(&["sh", "-c", "echo one; echo two >&2"], LIMIT, 1000);
        assert_eq!(said, "one\ntwo\n");
        let said = output(&["sh", "-c", "seq 1 1000"], LIMIT, 12);
        assert!(said.ends_with("]\n999\n1000\n"), "{said}");
        assert!(output(&["/nowhere"], LIMIT, 9).contains("/nowhere: "));
    }

    #[test]
    fn one_that_does_not_end_is_ended() {
        let began = Instant::now();
        let script = "echo first; exec sleep 60";
        let said = output(&["sh", "-c", script], Duration::from_millis(200), 1000);
        assert!(
            said.starts_with("first\n") && said.contains("too long"),
            "{said}"
        );
        assert!(began.elapsed() < LIMIT);
    }
}
