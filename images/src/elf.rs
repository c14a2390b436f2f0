//! Whether a program runs in the images.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// ELF's number for x86_64.
const X86_64: u16 = 62;
/// A program header that names the dynamic loader.
const INTERPRETER: u32 = 3;

/// Checks that a file is a static program for x86_64.
pub(crate) fn check(path: &Path) -> Result<()> {
    let refused = |reason: String| Error::Knode {
        path: path.to_owned(),
        reason,
    };
    let bytes = fs::read(path).map_err(|error| refused(error.to_string()))?;
    judge(&bytes).map_err(|reason| refused(reason.to_owned()))
}

fn judge(bytes: &[u8]) -> std::result::Result<(), &'static str> {
    const CUT: &str = "it is cut off";
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return Err("it is no 64-bit ELF program");
    }
    let half = |at: usize| number::<2>(bytes, at).map(u16::from_le_bytes).ok_or(CUT);
    if half(18)? != X86_64 {
        return Err("it is for another architecture");
    }
    let table = number::<8>(bytes, 32).map(u64::from_le_bytes).ok_or(CUT)?;
    let table = usize::try_from(table).map_err(|_| CUT)?;
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    for index in 0..count {
        let at = size.checked_mul(index).and_then(|it| it.checked_add(table));
        let kind = at.and_then(|at| number::<4>(bytes, at)).ok_or(CUT)?;
        if u32::from_le_bytes(kind) == INTERPRETER {
            return Err("it is not static");
        }
    }
    Ok(())
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with one program header of this kind.
    fn program(machine: u16, kind: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    #[test]
    fn only_static_programs_for_the_architecture_run() {
        assert_eq!(judge(&program(62, 1)), Ok(()));
        assert_eq!(judge(&program(62, 3)), Err("it is not static"));
        assert_eq!(
            judge(&program(183, 1)),
            Err("it is for another architecture")
        );
        assert_eq!(judge(b"#!/bin/sh\n"), Err("it is no 64-bit ELF program"));
        assert_eq!(judge(&program(62, 1)[..66]), Err("it is cut off"));
        assert_eq!(judge(&program(62, 1)[..20]), Err("it is cut off"));
    }
}
