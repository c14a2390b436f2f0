//! The report's packing: gzip, by the machine's own program. Where there is
//! none, gzip's format without compression, which every reader takes. knode's
//! own compressor would be a hundredth of the agent, for one command.

use std::time::Duration;

use flate2::Crc;

use crate::sys::program;

/// How long the program may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest stored block. RFC 1951, 3.2.4.
const BLOCK: usize = 65_535;
/// Magic number, method deflate, no flags, no time, no hint, any system.
/// RFC 1952, 2.3.1.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// The bytes in gzip's format.
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    match program::filter(&["gzip", "--fast", "--stdout"], bytes, LIMIT) {
        Ok(packed) if packed.starts_with(&HEADER[..3]) => packed,
        _ => store(bytes),
    }
}

/// The bytes as they are, in gzip's format.
fn store(bytes: &[u8]) -> Vec<u8> {
    let mut packed = HEADER.to_vec();
    let mut rest = bytes;
    loop {
        let (block, after) = rest.split_at(rest.len().min(BLOCK));
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        packed.push(u8::from(after.is_empty()));
        packed.extend(length.to_le_bytes());
        packed.extend((!length).to_le_bytes());
        packed.extend(block);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    let mut crc = Crc::new();
    crc.update(bytes);
    packed.extend(crc.sum().to_le_bytes());
    // Of its length the last 32 bits.
    packed.extend((bytes.len() as u32).to_le_bytes());
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn both_ways_give_back_what_was_packed() {
        for length in [0, 1, BLOCK, BLOCK + 1, 200_000] {
            let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            for packed in [pack(&bytes), store(&bytes)] {
                let mut back = Vec::new();
                let mut reader = flate2::read::GzDecoder::new(packed.as_slice());
                reader.read_to_end(&mut back).unwrap();
                assert!(back == bytes, "{length}");
            }
        }
        let text = vec![b'x'; 100_000];
        assert!(pack(&text).len() < 2000, "the program compresses");
    }
}
