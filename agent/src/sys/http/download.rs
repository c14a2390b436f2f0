//! A download that never hangs, and goes on at the byte where another ended
//! (RFC 9110, 13.1.5 and 14).

use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, IF_RANGE, RANGE, RETRY_AFTER};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::time::Instant;

use super::{CONNECT, refused};
use crate::error::{Code, Context, Error};

/// How long a download may take where.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest time without an answer or a byte.
    pub stall: Duration,
    /// Bytes that have to come while `stall` is waited altogether: a server
    /// that sends a byte now and then is stalled, too.
    pub floor: u64,
    /// When all has to be done; `None`: as long as bytes come.
    pub deadline: Option<Instant>,
}

impl Limits {
    /// `longest`, or what is left until the deadline.
    fn within(&self, longest: Duration) -> Duration {
        self.deadline.map_or(longest, |deadline| {
            longest.min(deadline.saturating_duration_since(Instant::now()))
        })
    }

    /// The same, and all has to be done by this deadline too.
    #[must_use]
    pub fn by(self, deadline: Option<Instant>) -> Self {
        Self {
            deadline: self.deadline.into_iter().chain(deadline).min(),
            ..self
        }
    }

    /// Whether the deadline has passed.
    pub fn is_over(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Whose fault it is that a download failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The server's, whatever it is asked for: it is away, slow, or overloaded.
    Server,
    /// This file's on that server: it answers, but not with that.
    File,
}

/// Why a download failed.
#[derive(Debug)]
pub struct Trouble {
    /// What to tell.
    pub error: Error,
    /// Whose fault it is.
    pub blame: Blame,
    /// When the server wants to be asked again (RFC 9110, 10.2.3).
    pub retry_after: Option<Duration>,
}

impl Trouble {
    fn of(blame: Blame, error: Error) -> Self {
        Self {
            error,
            blame,
            retry_after: None,
        }
    }
}

/// How far a download came: where the next one goes on.
#[derive(Debug, Clone, Default)]
pub struct Point {
    /// Bytes that are there.
    pub at: u64,
    /// Bytes there will be, where the size is pinned or a server said so.
    pub total: Option<u64>,
    pinned: Option<u64>,
    /// The version that an address had, by its entity tag.
    tag: Option<(String, HeaderValue)>,
}

impl Point {
    /// Nothing there yet, of so many bytes where that is pinned.
    pub fn start(pinned: Option<u64>) -> Self {
        Self {
            at: 0,
            total: pinned,
            pinned,
            tag: None,
        }
    }
}

/// The body of a download, chunk by chunk.
#[derive(Debug)]
pub struct Download {
    response: Response,
    url: String,
    limits: Limits,
    point: Point,
    waited: Duration,
    meanwhile: u64,
}

impl Download {
    /// Asks for what of `url` is missing behind `point`. Where the server
    /// cannot go on there (it knows no ranges, or has another version by now),
    /// the download begins at byte 0: see [`Download::point`].
    ///
    /// # Errors
    ///
    /// [`Code::Dns`], [`Code::Connect`], [`Code::Tls`]: no connection;
    /// [`Code::FetchHttp`]: an answer other than success;
    /// [`Code::FetchSize`]: the file there has another size;
    /// [`Code::FetchStall`]: no answer.
    pub async fn start(
        client: &Client,
        url: &str,
        point: &Point,
        limits: Limits,
    ) -> Result<Self, Trouble> {
        let response = ask(client, url, point, &limits).await?;
        let goes_on = match response.status() {
            StatusCode::OK => false,
            StatusCode::PARTIAL_CONTENT if point.at > 0 => continues(response.headers(), point),
            // It is shorter there than what is here already.
            StatusCode::RANGE_NOT_SATISFIABLE if point.at > 0 => false,
            _ => return Err(status(&response, url)),
        };
        if goes_on {
            return Ok(Self::new(response, url, limits, point.clone()));
        }
        // The rest of something else is of no use: all of it, then.
        let response = if response.status() == StatusCode::OK {
            response
        } else {
            let from_start = Point::start(point.pinned);
            ask(client, url, &from_start, &limits).await?
        };
        if response.status() != StatusCode::OK {
            return Err(status(&response, url));
        }
        let said = response.content_length();
        if let (Some(wanted), Some(said)) = (point.pinned, said)
            && wanted != said
        {
            let text = format!("{url} has {said} bytes, not {wanted}");
            return Err(Trouble::of(Blame::File, Error::new(Code::FetchSize, text)));
        }
        let tag = response.headers().get(ETAG).filter(|tag| is_strong(tag));
        let point = Point {
            at: 0,
            total: point.pinned.or(said),
            pinned: point.pinned,
            tag: tag.map(|tag| (url.to_owned(), tag.clone())),
        };
        Ok(Self::new(response, url, limits, point))
    }

    fn new(response: Response, url: &str, limits: Limits, point: Point) -> Self {
        Self {
            response,
            url: url.to_owned(),
            limits,
            point,
            waited: Duration::ZERO,
            meanwhile: 0,
        }
    }

    /// Where the next chunk belongs.
    pub fn point(&self) -> &Point {
        &self.point
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Code::FetchStall`]: nothing came for too long, or too little;
    /// [`Code::FetchSize`]: the connection broke before the end, or more came
    /// than there should be.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        let began = Instant::now();
        let limit = self.limits.within(self.limits.stall);
        let chunk = tokio::time::timeout(limit, self.response.chunk())
            .await
            .map_err(|_| stalled(&self.url, limit))?
            .context(Code::FetchSize, || format!("{} broke off", self.url))
            .map_err(|error| Trouble::of(Blame::Server, error))?;
        let Some(bytes) = chunk else {
            return self.end();
        };
        let length = bytes.len() as u64;
        self.point.at += length;
        if self.point.total.is_some_and(|total| self.point.at > total) {
            let text = format!("{} is longer than it should be", self.url);
            return Err(Trouble::of(Blame::File, Error::new(Code::FetchSize, text)));
        }
        // What the disk takes is not counted: only waiting for the server is.
        self.waited += began.elapsed();
        self.meanwhile += length;
        if self.waited >= self.limits.stall {
            if self.meanwhile < self.limits.floor {
                let text = format!(
                    "{} sends less than {} bytes in {} s",
                    self.url,
                    self.limits.floor,
                    self.limits.stall.as_secs()
                );
                return Err(Trouble::of(
                    Blame::Server,
                    Error::new(Code::FetchStall, text),
                ));
            }
            self.waited = Duration::ZERO;
            self.meanwhile = 0;
        }
        Ok(Some(bytes.into()))
    }

    fn end(&self) -> Result<Option<Vec<u8>>, Trouble> {
        match self.point.total {
            Some(total) if self.point.at < total => {
                let text = format!("{} ended early, {total} bytes are wanted", self.url);
                Err(Trouble::of(
                    Blame::Server,
                    Error::new(Code::FetchSize, text),
                ))
            }
            _ => Ok(None),
        }
    }
}

async fn ask(
    client: &Client,
    url: &str,
    point: &Point,
    limits: &Limits,
) -> Result<Response, Trouble> {
    let mut request = client
        .get(url)
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if point.at > 0 {
        request = request.header(RANGE, format!("bytes={}-", point.at));
        // Another address may have another tag for the same bytes.
        if let Some((_, tag)) = point.tag.as_ref().filter(|(of, _)| of == url) {
            request = request.header(IF_RANGE, tag);
        }
    }
    let limit = limits.within(CONNECT + limits.stall);
    tokio::time::timeout(limit, request.send())
        .await
        .map_err(|_| stalled(url, limit))?
        .map_err(|error| Trouble::of(Blame::Server, refused(error, url)))
}

/// Whether an answer of status 206 begins where `point` ends, in a file of the
/// same size (RFC 9110, 14.4).
fn continues(headers: &HeaderMap, point: &Point) -> bool {
    let Some((first, total)) = text(headers, CONTENT_RANGE).and_then(content_range) else {
        return false;
    };
    let same_size = match (point.total, total) {
        (Some(known), Some(total)) => known == total,
        _ => true,
    };
    first == point.at && same_size
}

/// First byte and size of `bytes 5-9/10`; a size may be unknown: `*`.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse::<u64>().ok()?),
    };
    (first <= last && total.is_none_or(|total| last < total)).then_some((first, total))
}

/// A weak tag does not promise the same bytes (RFC 9110, 8.8.1).
fn is_strong(tag: &HeaderValue) -> bool {
    !tag.as_bytes().starts_with(b"W/")
}

fn status(response: &Response, url: &str) -> Trouble {
    let status = response.status();
    let error = Error::new(Code::FetchHttp, format!("{url} answers {status}"));
    let busy = status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        );
    Trouble {
        error,
        blame: if busy { Blame::Server } else { Blame::File },
        retry_after: text(response.headers(), RETRY_AFTER)
            .and_then(|value| retry_after(value, OffsetDateTime::now_utc())),
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(value: &str, now: OffsetDateTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = OffsetDateTime::parse(&value.trim().replace("GMT", "+0000"), &Rfc2822).ok()?;
    (date - now).try_into().ok()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn stalled(url: &str, limit: Duration) -> Trouble {
    let text = format!("{url} sent nothing for {:.0} s", limit.as_secs_f64());
    Trouble::of(Blame::Server, Error::new(Code::FetchStall, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_as_rfc_9110_has_them() {
        for (text, read) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-0/*", Some((0, None))),
            ("bytes 5-9/9", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("lines 5-9/10", None),
            ("bytes 5-9", None),
            ("", None),
        ] {
            assert_eq!(content_range(text), read, "{text:?}");
        }
    }

    #[test]
    fn an_answer_goes_on_only_where_the_last_one_ended() {
        let point = Point {
            at: 5,
            total: Some(10),
            pinned: None,
            tag: None,
        };
        for (value, goes_on) in [
            ("bytes 5-9/10", true),
            ("bytes 5-9/*", true),
            ("bytes 4-9/10", false),
            ("bytes 5-10/11", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_static(value))]);
            assert_eq!(continues(&headers, &point), goes_on, "{value}");
        }
        assert!(!continues(&HeaderMap::new(), &point));
    }

    #[test]
    fn a_server_says_when_to_come_back_in_seconds_or_by_date() {
        let now = OffsetDateTime::from_unix_timestamp(784_111_777).unwrap();
        let seconds = |value| retry_after(value, now).map(|d| d.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), None);
        assert_eq!(seconds("soon"), None);
    }
}
