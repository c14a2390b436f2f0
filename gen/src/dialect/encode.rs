//! How the bytes of a file are written: plain, base64, or gzip in base64,
//! whichever is smallest.

use std::cell::RefCell;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// What a plain text adds to a document: the indentation of each line.
const INDENT: usize = 4;
/// What an encoding adds: the line that names it.
const NAMED: usize = "  encoding: b64\n".len();

/// A file's content in a document.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The text.
    pub text: String,
    /// The encoding, by the name that both languages have for it.
    pub encoding: Option<&'static str>,
}

/// Encodes `bytes`; `forbidden` says which text must not stand in the open.
pub fn encode(bytes: &[u8], forbidden: impl Fn(&str) -> bool) -> Result<Encoded> {
    let packed = gzip(bytes)?;
    let (shorter, encoding) = if packed.len() < bytes.len() {
        (&packed[..], "gz+b64")
    } else {
        (bytes, "b64")
    };
    let plain = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| is_plain(text) && !forbidden(text));
    let base64_len = shorter.len().div_ceil(3) * 4;
    Ok(match plain {
        Some(text) if size(text) <= base64_len + NAMED => Encoded {
            text: text.to_owned(),
            encoding: None,
        },
        _ => Encoded {
            text: STANDARD.encode(shorter),
            encoding: Some(encoding),
        },
    })
}

/// How many bytes a plain text takes as a literal block.
fn size(text: &str) -> usize {
    text.len() + INDENT * text.lines().count()
}

/// Whether a text can be a literal block that every reader gives back as it
/// was: printable ASCII, whole lines, and a first line that begins with a
/// letter, so that nothing has to be said about indentation.
fn is_plain(text: &str) -> bool {
    let printable = |b: u8| b == b'\n' || (b' '..=b'~').contains(&b);
    text.starts_with(|c: char| !c.is_whitespace())
        && text.ends_with('\n')
        && !text.ends_with("\n\n")
        && text.bytes().all(printable)
}

/// gzip (RFC 1952) without name and time: the same bytes every time.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    // Deflate, no flags, no time, best compression, unknown system.
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 0xff];
    let mut packed = Vec::with_capacity(bytes.len() / 2 + 64);
    packed.extend(HEADER);
    DEFLATE.with_borrow_mut(|deflate| {
        deflate.reset();
        loop {
            let done = usize::try_from(deflate.total_in()).unwrap_or(usize::MAX);
            let rest = bytes.get(done..).unwrap_or_default();
            let status = deflate.compress_vec(rest, &mut packed, FlushCompress::Finish);
            if status.context("compressing a file")? == Status::StreamEnd {
                return Ok::<_, anyhow::Error>(());
            }
            packed.reserve(packed.len());
        }
    })?;
    let mut crc = Crc::new();
    crc.update(bytes);
    packed.extend(crc.sum().to_le_bytes());
    packed.extend(crc.amount().to_le_bytes());
    Ok(packed)
}

thread_local! {
    /// Its tables are larger than most files, and are made once.
    static DEFLATE: RefCell<Compress> = RefCell::new(Compress::new(Compression::best(), false));
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn decode(encoded: &Encoded) -> Vec<u8> {
        match encoded.encoding {
            None => encoded.text.as_bytes().to_vec(),
            Some("b64") => STANDARD.decode(&encoded.text).unwrap(),
            Some("gz+b64") => {
                let packed = STANDARD.decode(&encoded.text).unwrap();
                let mut bytes = Vec::new();
                GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
                bytes
            }
            Some(other) => panic!("{other}"),
        }
    }

    proptest! {
        #[test]
        fn whatever_is_encoded_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let encoded = encode(&bytes, |_| false).unwrap();
            prop_assert_eq!(decode(&encoded), bytes);
        }

        #[test]
        fn text_comes_back_too(text in "([ -~]{0,30}\n){0,20}", secret: bool) {
            let encoded = encode(text.as_bytes(), |_| secret).unwrap();
            prop_assert_eq!(decode(&encoded), text.as_bytes());
            prop_assert!(!secret || encoded.encoding.is_some());
        }
    }

    #[test]
    fn the_smallest_way_is_taken() {
        let encoding = |bytes: &[u8]| encode(bytes, |_| false).unwrap().encoding;
        assert_eq!(encoding(b"short\n"), None);
        assert_eq!(
            encoding("the same line\n".repeat(100).as_bytes()),
            Some("gz+b64")
        );
        assert_eq!(encoding(b"\x00\x01"), Some("b64"));
        for unsafe_text in [
            "no end", "\tx\n", " x\n", "", "\n", "x\n\n", "x\r\n", "é\n", "a\tb\n",
        ] {
            assert!(
                encoding(unsafe_text.as_bytes()).is_some(),
                "{unsafe_text:?}"
            );
        }
    }
}
