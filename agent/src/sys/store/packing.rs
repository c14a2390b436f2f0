//! How artifacts are packed: readers that unpack while bytes arrive.
//!
//! Bytes are not known to be right before the last of them came, so what a
//! wrong mirror sends must not be able to exhaust the machine: decoders have
//! a limit of memory, and [`Bounded`] one of what they may yield.

use std::io::{self, BufRead as _, BufReader, Read};

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use units::node_config::{Compression, Packing};

/// xz -9 takes 65 MiB (xz(1)), in KiB.
const XZ_MEMORY: u32 = 96 * 1024;
/// zstd --long=27 takes 128 MiB, the most that zstd(1) unpacks unasked.
const ZSTD_WINDOW: u64 = 128 << 20;
/// What comes out of any decoder, whatever goes in.
const LEAST_ROOM: u64 = 256 << 20;
/// Programs shrink to about a third; text to a tenth.
const LARGEST_RATIO: u64 = 64;
/// Bytes that decoders are fed at once.
const FEED: usize = 32 * 1024;

/// The unpacked bytes of what arrives; `size` is how many will arrive, where
/// that is known.
///
/// Reading fails where the packed bytes are damaged, or take more memory or
/// room than honest ones.
pub fn unpacked<'a, R: Read + 'a>(
    packing: Packing,
    size: Option<u64>,
    packed: R,
) -> Box<dyn Read + 'a> {
    let limit = size.map_or(u64::MAX, |size| {
        size.saturating_mul(LARGEST_RATIO).max(LEAST_ROOM)
    });
    match packing.compression() {
        Compression::None => Box::new(packed),
        Compression::Gzip => Box::new(Bounded::new(MultiGzDecoder::new(packed), limit)),
        Compression::Xz => {
            let packed = BufReader::with_capacity(FEED, packed);
            Box::new(Bounded::new(
                XzReader::new_mem_limit(packed, true, XZ_MEMORY),
                limit,
            ))
        }
        Compression::Zstd => Box::new(Bounded::new(Frames::new(packed), limit)),
    }
}

/// Yields no more than a limit, and fails there.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R> Bounded<R> {
    fn new(inner: R, limit: u64) -> Self {
        Self { inner, left: limit }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(into)?;
        match self.left.checked_sub(length as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(io::Error::other(
                    "it unpacks to more than any honest archive",
                ));
            }
        }
        Ok(length)
    }
}

/// All frames of a Zstandard stream, one after the other; those that are to be
/// skipped are (RFC 8878, 3).
struct Frames<R> {
    packed: BufReader<R>,
    decoder: FrameDecoder,
    /// Whether a frame was begun: before the first, the decoder has none.
    begun: bool,
}

impl<R: Read> Frames<R> {
    fn new(packed: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW);
        Self {
            packed: BufReader::with_capacity(FEED, packed),
            decoder,
            begun: false,
        }
    }

    /// Begins the next frame; false when there is none.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.packed.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.packed) {
                Ok(()) => {
                    self.begun = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => skip(&mut self.packed, length.into())?,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.begun && self.decoder.can_collect() > 0 {
                return self.decoder.read(into);
            }
            if self.begun && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder
                    .decode_blocks(&mut self.packed, one)
                    .map_err(io::Error::other)?;
            } else if !self.begin()? {
                return Ok(0);
            }
        }
    }
}

fn skip(packed: &mut impl Read, length: u64) -> io::Result<()> {
    let skipped = io::copy(&mut packed.take(length), &mut io::sink())?;
    if skipped == length {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
