//! Downloads that break off, and mirrors that lie, change, stall or are away
//! (F1, F2, B2).

mod mirror;

use std::time::{Duration, Instant};

use knode::error::Code;
use knode::fetch::{Board, Transfer};
use knode::sys::http::Limits;
use mirror::{Answer, Fixture, Mirror, Then, content, plain};

const TAG: &str = "\"v1\"";

/// A mirror that is away: nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/x", listener.local_addr().unwrap())
}

/// F2: cut at random bytes again and again, it goes on where it was.
#[tokio::test]
async fn f2_a_download_goes_on_at_the_byte_where_it_was_cut() {
    let mirror = Mirror::start(|asked| {
        let at = fastrand::usize(100_000..900_000);
        Answer::good(&content(), TAG, asked).cut(at, Then::Close)
    })
    .await;
    let fixture = Fixture::new();
    let artifact = plain("tool", vec![mirror.url("x")]);
    assert_eq!(fixture.fetch(&artifact).await.unwrap(), 3_000_000);
    assert_eq!(fixture.stored(&artifact, "tool"), content());
    let ranges = mirror.ranges();
    assert!(ranges.len() >= 4, "{ranges:?}");
    assert_eq!(ranges[0], None);
    // Every later request begins behind the one before it, and is conditional.
    assert!(
        ranges.windows(2).all(|pair| pair[0] < pair[1]),
        "{ranges:?}"
    );
    let tags = mirror.asked().into_iter().skip(1);
    assert!(
        tags.into_iter()
            .all(|asked| asked.if_range.as_deref() == Some(TAG))
    );
}

/// F2: what one mirror began another one ends; entity tags are each one's own.
#[tokio::test]
async fn f2_another_mirror_goes_on_where_the_first_one_stalled() {
    let first =
        Mirror::start(|asked| Answer::good(&content(), TAG, asked).cut(1_000_000, Then::Hang))
            .await;
    let second = Mirror::start(|asked| Answer::good(&content(), "\"other\"", asked)).await;
    let fixture = Fixture::new();
    let artifact = plain("tool", vec![first.url("x"), second.url("x")]);
    fixture.fetch(&artifact).await.unwrap();
    assert_eq!(first.asked().len(), 1);
    assert_eq!(second.ranges(), [Some(1_000_000)]);
    assert_eq!(second.asked()[0].if_range, None);
}

/// F2: what arrived is kept while there is no mirror, from round to round.
#[tokio::test]
async fn f2_a_later_round_goes_on_with_what_is_there() {
    let mirror = Mirror::start(|asked| match asked.before {
        0 => Answer::good(&content(), TAG, asked).cut(2_000_000, Then::Close),
        1 | 2 => Answer::status(502),
        _ => Answer::good(&content(), TAG, asked),
    })
    .await;
    let fixture = Fixture::new();
    let artifact = plain("tool", vec![mirror.url("x")]);
    let board = Board::new(std::slice::from_ref(&artifact));
    let mut transfer = Transfer::new(&artifact);
    let failed = transfer
        .round(&fixture.fetcher, &board, None)
        .await
        .unwrap_err();
    assert_eq!(failed.error.code(), Code::FetchHttp);
    assert!(failed.moved);
    let failed = transfer
        .round(&fixture.fetcher, &board, None)
        .await
        .unwrap_err();
    assert!(!failed.moved);
    transfer
        .round(&fixture.fetcher, &board, None)
        .await
        .unwrap();
    let last = mirror.ranges().pop().unwrap();
    assert_eq!(last, Some(2_000_000));
}

/// Whatever a server does with a range that it does not understand: all is
/// asked for again, and nothing wrong comes of it.
#[tokio::test]
async fn servers_that_cannot_go_on_are_asked_for_all_of_it() {
    type Second = fn(&mirror::Asked) -> Answer;
    let cases: [(&str, Second, &[Option<usize>]); 5] = [
        (
            "no ranges",
            |_| Answer::whole(&content()),
            &[None, Some(1_000_000)],
        ),
        (
            "another range",
            |asked| match asked.range {
                None => Answer::whole(&content()),
                Some(_) => {
                    let mut answer = Answer::whole(&content()[5..]);
                    answer.status = 206;
                    answer.header("Content-Range: bytes 5-2999999/3000000");
                    answer
                }
            },
            &[None, Some(1_000_000), None],
        ),
        (
            "a range of a file of another size",
            |asked| match asked.range {
                None => Answer::whole(&content()),
                Some(first) => {
                    let mut answer = Answer::whole(&content()[first..]);
                    answer.status = 206;
                    answer.header(format!("Content-Range: bytes {first}-2999999/3000001"));
                    answer
                }
            },
            &[None, Some(1_000_000), None],
        ),
        (
            "a range without a place",
            |asked| match asked.range {
                None => Answer::whole(&content()),
                Some(first) => {
                    let mut answer = Answer::whole(&content()[first..]);
                    answer.status = 206;
                    answer
                }
            },
            &[None, Some(1_000_000), None],
        ),
        (
            "no such range",
            |asked| match asked.range {
                None => Answer::whole(&content()),
                Some(_) => Answer::status(416),
            },
            &[None, Some(1_000_000), None],
        ),
    ];
    for (name, then, ranges) in cases {
        let mirror = Mirror::start(move |asked| match asked.before {
            0 => Answer::good(&content(), TAG, asked).cut(1_000_000, Then::Close),
            _ => then(asked),
        })
        .await;
        let fixture = Fixture::new();
        let artifact = plain("tool", vec![mirror.url("x")]);
        let fetched = fixture.fetch(&artifact).await;
        let asked = mirror.ranges();
        assert_eq!(asked, ranges, "{name}: {fetched:?}");
        assert_eq!(fixture.stored(&artifact, "tool"), content(), "{name}");
        assert_eq!(fixture.entries().len(), 1, "{name}");
    }
}

/// A file that is replaced in the middle of a download: the tag tells, and
/// the pieces of two versions are never put together.
#[tokio::test]
async fn a_file_that_changes_in_between_is_begun_anew() {
    let old: Vec<u8> = content().iter().map(|byte| byte ^ 1).collect();
    let mirror = Mirror::start(move |asked| match asked.before {
        0 => Answer::good(&old, "\"old\"", asked).cut(1_500_000, Then::Close),
        _ => Answer::good(&content(), "\"new\"", asked),
    })
    .await;
    let fixture = Fixture::new();
    let artifact = plain("tool", vec![mirror.url("x")]);
    fixture.fetch(&artifact).await.unwrap();
    let asked = mirror.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[1].range, Some(1_500_000));
    assert_eq!(asked[1].if_range.as_deref(), Some("\"old\""));
}

/// F1: a mirror with wrong bytes is passed over, for other files too.
#[tokio::test]
async fn f1_a_mirror_that_lies_is_not_asked_again() {
    let liar = Mirror::start(|_| Answer::whole(&vec![0; 3_000_000])).await;
    let good = Mirror::start(|asked| Answer::good(&content(), TAG, asked)).await;
    let fixture = Fixture::new();
    for (count, name) in ["one", "two", "three"].into_iter().enumerate() {
        let artifact = plain(name, vec![liar.url(name), good.url(name)]);
        // One digest: as if each was another artifact.
        fixture.fetch(&artifact).await.unwrap();
        assert_eq!(liar.asked().len(), 1);
        assert_eq!(good.asked().len(), count + 1);
    }
}

/// F1, F3: where everybody lies they are asked again, in case it is mended.
#[tokio::test]
async fn f1_a_lone_mirror_that_lied_may_mend_itself() {
    let mirror = Mirror::start(|asked| match asked.before {
        0 => Answer::whole(&vec![0; 3_000_000]),
        _ => Answer::whole(&content()),
    })
    .await;
    let fixture = Fixture::new();
    let artifact = plain("tool", vec![mirror.url("x")]);
    let error = fixture.fetch(&artifact).await.unwrap_err();
    assert_eq!(error.code(), Code::FetchHash);
    assert!(
        error.story().contains(&mirror.url("x")),
        "{}",
        error.story()
    );
    fixture.until_empty().await;
    fixture.fetch(&artifact).await.unwrap();
}

/// F1: when bytes of two mirrors together are wrong, nobody knows whose: each
/// is asked for all, and the liar is found.
#[tokio::test]
async fn f1_wrong_bytes_of_several_mirrors_are_held_against_the_right_one() {
    let wrong = || vec![0; 3_000_000];
    let liar = Mirror::start(move |asked| {
        let cut = if asked.before == 0 {
            1_000_000
        } else {
            usize::MAX
        };
        Answer::good(&wrong(), TAG, asked).cut(cut, Then::Hang)
    })
    .await;
    let good = Mirror::start(|asked| Answer::good(&content(), TAG, asked)).await;
    let fixture = Fixture::new();
    let artifact = plain("tool", vec![liar.url("x"), good.url("x")]);
    fixture.fetch(&artifact).await.unwrap();
    // The second mirror ended what the first one began, and then sent all.
    assert_eq!(good.ranges(), [Some(1_000_000), None]);
    let next = plain("next", vec![good.url("y"), liar.url("y")]);
    fixture.fetch(&next).await.unwrap();
    assert_eq!(good.asked().len(), 3);
}

/// F2: one dead mirror costs one timeout and not one for each artifact.
#[tokio::test]
async fn f2_a_dead_mirror_is_waited_for_once() {
    let silent = Mirror::start(|_| Answer {
        promised: Some(10),
        ..Answer::status(200).cut(0, Then::Hang)
    })
    .await;
    let good = Mirror::start(|asked| Answer::good(&content(), TAG, asked)).await;
    let fixture = Fixture::new();
    let mut artifact = plain("one", vec![silent.url("one"), good.url("one")]);
    artifact.size = None;
    fixture.fetch(&artifact).await.unwrap();
    for name in ["two", "three", "four"] {
        let artifact = plain(name, vec![silent.url(name), good.url(name)]);
        fixture.fetch(&artifact).await.unwrap();
    }
    assert_eq!(silent.asked().len(), 1);
}

/// F2: bytes that drip are no progress; a deadline holds whatever happens.
#[tokio::test]
async fn f2_dripping_bytes_are_a_stall_and_the_deadline_is_kept() {
    let drip = |pause: u64, size: usize| {
        Mirror::start(move |asked| Answer {
            pace: Some((size, Duration::from_millis(pause))),
            ..Answer::good(&content(), TAG, asked)
        })
    };
    let slow = drip(20, 100).await;
    let fixture = Fixture::new();
    let artifact = plain("tool", vec![slow.url("x")]);
    let error = fixture.fetch(&artifact).await.unwrap_err();
    assert_eq!(error.code(), Code::FetchStall, "{}", error.story());
    assert!(error.story().contains("less than"), "{}", error.story());

    // Half a minute's bytes, no stall in sight, and a deadline.
    let limits = Limits {
        stall: Duration::from_secs(60),
        floor: 0,
        deadline: Some(tokio::time::Instant::now() + Duration::from_millis(800)),
    };
    let steady = drip(100, 10_000).await;
    let fixture = Fixture::with(limits);
    let began = Instant::now();
    let artifact = plain("tool", vec![steady.url("x")]);
    let error = fixture.fetch(&artifact).await.unwrap_err();
    assert_eq!(error.code(), Code::FetchStall, "{}", error.story());
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn statuses_redirects_and_pauses_are_understood() {
    let good = Mirror::start(|asked| Answer::good(&content(), TAG, asked)).await;
    let there = good.url("moved");
    let other = Mirror::start(move |asked| {
        let mut answer = match asked.path.as_str() {
            "/busy" => Answer::status(503),
            "/away" | "/loop" => Answer::status(302),
            _ => Answer::status(404),
        };
        answer.header(match asked.path.as_str() {
            "/away" => format!("Location: {there}"),
            "/loop" => "Location: /loop".to_owned(),
            _ => "Retry-After: 7".to_owned(),
        });
        answer
    })
    .await;
    let fixture = Fixture::new();
    let artifact = plain("tool", vec![other.url("none"), other.url("away")]);
    fixture.fetch(&artifact).await.unwrap();

    let artifact = plain("loop", vec![other.url("loop")]);
    assert!(fixture.fetch(&artifact).await.is_err());
    let artifact = plain("none", vec![other.url("none")]);
    let error = fixture.fetch(&artifact).await.unwrap_err();
    assert_eq!(error.code(), Code::FetchHttp);
    assert!(error.story().contains("pause"), "{}", error.story());

    let artifact = plain("busy", vec![other.url("busy")]);
    let board = Board::new(std::slice::from_ref(&artifact));
    let mut transfer = Transfer::new(&artifact);
    let failed = transfer
        .round(&fixture.fetcher, &board, None)
        .await
        .unwrap_err();
    assert_eq!(failed.error.code(), Code::FetchHttp);
    let pause = failed.pause.unwrap().as_secs_f64();
    assert!((6.0..=7.0).contains(&pause), "{pause}");
    let asked = other.asked().len();
    transfer
        .round(&fixture.fetcher, &board, None)
        .await
        .unwrap_err();
    assert_eq!(other.asked().len(), asked, "asked again too early");
}

#[tokio::test]
async fn nobody_listening_and_no_such_name_are_told_apart() {
    let fixture = Fixture::new();
    let error = fixture.fetch(&plain("x", vec![nobody()])).await;
    assert_eq!(error.unwrap_err().code(), Code::Connect);
    let nameless = "http://no-such-host.invalid/x".to_owned();
    let error = fixture.fetch(&plain("x", vec![nameless])).await;
    // Where nobody resolves names, nobody can say that there is no such name.
    let code = error.unwrap_err().code();
    assert!(matches!(code, Code::NoName | Code::Dns), "{code}");
    let error = fixture.fetch(&plain("x", Vec::new())).await;
    assert_eq!(error.unwrap_err().code(), Code::ConfigInvalid);
}
