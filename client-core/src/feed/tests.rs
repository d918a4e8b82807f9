use super::*;

const MS: Duration = Duration::from_millis(1);

/// What a reader gives, in words, of bytes that come in pieces of so many, all at `now`.
fn read_in(mut reader: Reader, bytes: &[u8], piece: usize, now: Instant) -> (Vec<String>, Reader) {
    let mut said = Vec::new();
    for mut piece in bytes.chunks(piece) {
        while !piece.is_empty() && !reader.is_over() {
            let room = reader.space();
            let n = room.len().min(piece.len());
            room[..n].copy_from_slice(&piece[..n]);
            reader.filled(n);
            piece = &piece[n..];
            while let Some(event) = reader.next(now) {
                said.push(words(&event));
            }
        }
    }
    (said, reader)
}

fn words(event: &Event<'_>) -> String {
    match event {
        Event::Began(place) => format!("began {place}"),
        Event::Beat(place) => format!("beat {}", place.seq),
        Event::Lost(why) => format!("lost {}", why.word()),
        Event::Change(change) => {
            let key = match change.key {
                Key::Text(key) => key.escape_ascii().to_string(),
                Key::Hash(hash) => format!("#{hash:x}"),
                Key::All => "*".to_owned(),
            };
            let Change {
                seq,
                what,
                cause,
                cas,
                origin,
                ..
            } = change;
            format!("{seq} {what:?} {cause} {key} {cas} {origin}")
        }
    }
}

/// The same however the bytes are cut (Fr2).
fn read(ask: &Ask, login: Option<&Login>, text: &str) -> (Vec<String>, Reader) {
    let now = Instant::now();
    let read = |piece| {
        read_in(
            Reader::new(ask.clone(), login, now),
            text.as_bytes(),
            piece,
            now,
        )
    };
    let whole = read(usize::MAX);
    for piece in 1..text.len().min(80) {
        assert_eq!(read(piece).0, whole.0, "in pieces of {piece}: {text:?}");
    }
    whole
}

/// What comes behind a good begin at `a1:7`.
fn told(text: &str) -> Vec<String> {
    let (mut said, _) = read(
        &Ask::default(),
        None,
        &format!("OK\r\nFEED 00000000000000a1 7\n{text}"),
    );
    assert_eq!(said.remove(0), "began 00000000000000a1:7");
    said
}

#[test]
fn what_is_asked() {
    let place = Place {
        epoch: 0xab,
        seq: 9,
    };
    let login = Login {
        user: "u".to_owned(),
        password: "p".to_owned(),
    };
    let text = |ask: &Ask, login| String::from_utf8(ask.request(login)).unwrap();
    assert_eq!(
        text(&Ask::default(), None),
        "watch feed heartbeat=1000 clock=ms\r\n"
    );
    let ask = Ask::default()
        .prefix("a b:ä")
        .form(Form::Hash)
        .from(place)
        .behind(100 * MS);
    assert_eq!(
        text(&ask, Some(&login)),
        "set auth 0 0 3\r\nu p\r\nwatch feed prefix=a%20b%3A%C3%A4 form=hash from=00000000000000ab:9 heartbeat=20 clock=ms\r\n"
    );
    for (bound, said) in [(MS, 10), (Duration::from_secs(1 << 40), 3_600_000)] {
        let asked = text(&Ask::default().silence(bound), None);
        assert_eq!(asked, format!("watch feed heartbeat={said} clock=ms\r\n"));
    }
}

#[test]
fn places_are_written_and_read() {
    let place = Place {
        epoch: 0xab,
        seq: 9,
    };
    assert_eq!(place.to_string().parse(), Ok(place));
    for text in [
        "",
        ":",
        "1:",
        ":1",
        "x:1",
        "1:x",
        "11112222333344445:1",
        "1:99999999999999999999",
        "1:+2",
    ] {
        assert_eq!(text.parse::<Place>(), Err(NoPlace), "{text}");
    }
}

#[test]
fn events_of_all_kinds() {
    let said = told(
        "1 8 set cas a%20b%00 17 5\n2 9 delete md k 0 0\n3 10 touch gat k 3 0\n4 11 expire upkeep k 3 0\n\
         5 12 evict set k 3 0\n6 13 flush flush_all * 0 0\nHB 6 13\n7 14 melt mg k 1 65535 more words\nHB 7 14 99 more\nGAP 40\n8 41 set set %2A 1 0\n",
    );
    assert_eq!(
        said,
        [
            "8 Set cas a b\\x00 17 5",
            "9 Delete md k 0 0",
            "10 Touch gat k 3 0",
            "11 Expire upkeep k 3 0",
            "12 Evict set k 3 0",
            "13 Flush flush_all * 0 0",
            "beat 13",
            "14 Other mg k 1 65535",
            "beat 14",
            "lost gap",
            "41 Set set * 1 0",
        ]
    );
}

#[test]
fn what_is_missed_is_told_once_and_ends_the_connection() {
    for (text, why) in [
        ("1 9 set set k 1 0\n", "hole"),
        ("2 8 set set k 1 0\n", "hole"),
        ("1 7 set set k 1 0\n", "hole"),
        ("HB 1 7\n", "hole"),
        ("HB 0 8\n", "hole"),
        ("HB 0 6\n", "hole"),
        ("GAP 6\n", "hole"),
        ("1 8 set set\n", "garbage"),
        ("1 8 set set k 1\n", "garbage"),
        ("1 8 set set k 1 65536\n", "garbage"),
        ("1 8 set set k -1 0\n", "garbage"),
        ("1 8 set set k%2 1 0\n", "garbage"),
        ("1 8 set set k%zz 1 0\n", "garbage"),
        ("1 8 set set  1 0\n", "garbage"),
        ("1 18446744073709551616 set set k 1 0\n", "garbage"),
        ("HB 0\n", "garbage"),
        ("HB 0 7 x\n", "garbage"),
        ("GAP\n", "garbage"),
        ("\n", "garbage"),
        ("FEED 00000000000000a1 7\n", "garbage"),
        ("OK\r\n", "garbage"),
        ("skipped=7\n", "garbage"),
    ] {
        let more = format!("{text}1 8 set set k 1 0\nHB 1 8\nGAP 9\n");
        assert_eq!(told(&more), [format!("lost {why}")], "{text}");
    }
    let long = format!("1 8 set set {} 1 0\n", "k".repeat(LINE_LEN_MAX));
    assert_eq!(told(&long), ["lost long_line"]);
    assert_eq!(told(&"k".repeat(LINE_LEN_MAX)), ["lost long_line"]);
    assert!(told(&"k".repeat(LINE_LEN_MAX - 1)).is_empty());
}

#[test]
fn with_a_prefix_numbers_have_holes_and_with_hashes_keys_are_numbers() {
    let begin = "OK\r\nFEED a1 7\n";
    let prefix = Ask::default().prefix("p");
    let (said, reader) = read(
        &prefix,
        None,
        &format!("{begin}1 20 set set pk 1 0\nHB 1 25\n2 25 set set pk 2 0\n"),
    );
    assert_eq!(said[1..], ["20 Set set pk 1 0", "beat 25", "lost hole"]);
    assert_eq!(reader.place().map(|place| place.seq), Some(25));
    let hash = Ask::default().form(Form::Hash);
    let (said, _) = read(
        &hash,
        None,
        &format!(
            "{begin}1 8 set set 85944171f73967e8 1 0\n2 9 flush flush_all * 0 0\n3 10 set set 85 1 0\n"
        ),
    );
    assert_eq!(
        said[1..],
        [
            "8 Set set #85944171f73967e8 1 0",
            "9 Flush flush_all * 0 0",
            "lost garbage"
        ]
    );
}

#[test]
fn the_begin() {
    let login = Login {
        user: "u".to_owned(),
        password: "p".to_owned(),
    };
    for (with_login, text, wanted) in [
        (
            true,
            "STORED\r\nOK\r\nFEED a1 7\n",
            "began 00000000000000a1:7",
        ),
        (
            true,
            "CLIENT_ERROR authentication failure\r\n",
            "lost sign_in",
        ),
        (false, "CLIENT_ERROR unauthenticated\r\n", "lost sign_in"),
        (false, "ERROR\r\n", "lost no_feed"),
        (
            false,
            "CLIENT_ERROR watch commands not allowed\r\n",
            "lost no_feed",
        ),
        (
            false,
            "WATCHER_TOO_MANY log watcher limit reached\r\n",
            "lost full",
        ),
        (false, "STORED\r\n", "lost garbage"),
        (false, "OK\r\nHB 0 7\n", "lost garbage"),
        (false, "OK\r\nFEED a1\n", "lost garbage"),
        (false, "OK\r\nFEED xyz 7\n", "lost garbage"),
    ] {
        let (said, reader) = read(&Ask::default(), with_login.then_some(&login), text);
        assert_eq!(said, [wanted], "{text}");
        assert_eq!(reader.is_reading(), wanted.starts_with("began"));
    }
}

#[test]
fn going_on_tells_whether_something_was_missed() {
    let ask = Ask::default().from(Place {
        epoch: 0xa1,
        seq: 7,
    });
    for (text, wanted) in [
        ("FEED a1 7\n1 8 set set k 1 0\n", &["8 Set set k 1 0"][..]),
        // The node's own word for it is not one more.
        ("FEED a2 7\nGAP 7\nHB 0 7\n", &["lost epoch", "beat 7"]),
        (
            "FEED a1 90\nGAP 90\n1 91 set set k 1 0\nGAP 99\n",
            &["lost gap", "91 Set set k 1 0", "lost gap"],
        ),
        // One that does not say so, and one that says so all the same.
        (
            "FEED a1 90\nHB 0 90\nGAP 95\n",
            &["lost gap", "beat 90", "lost gap"],
        ),
        ("FEED a1 7\nGAP 7\n", &["lost gap"]),
    ] {
        let (said, _) = read(&ask, None, &format!("OK\r\n{text}"));
        assert_eq!(said[1..], *wanted, "{text}");
    }
    // What was not understood was not seen.
    let (_, reader) = read(
        &ask,
        None,
        "OK\r\nFEED a1 7\n1 8 set set k 1 0\n2 9 set set k% 1 0\n",
    );
    assert_eq!(
        reader.place(),
        Some(Place {
            epoch: 0xa1,
            seq: 8
        })
    );
}

#[test]
fn silence_is_told_when_it_has_lasted() {
    let begun = Instant::now();
    let at = |ms: u64| begun + MS * ms as u32;
    let new = || Reader::new(Ask::default().silence(100 * MS), None, begun);
    let mut reader = new();
    assert_eq!(reader.due_at(), Some(at(100)));
    assert_eq!(reader.next(at(99)), None);
    assert_eq!(reader.next(at(100)), Some(Event::Lost(Lost::Silent)));
    assert_eq!(reader.next(at(500)), None);
    assert_eq!(reader.due_at(), None);
    // Half a line is nothing heard; what has come is read before the time is looked at.
    let (said, mut reader) = read_in(new(), b"OK\r\nFEED a1 7\nHB 0 7\nH", 999, at(400));
    assert_eq!(said, ["began 00000000000000a1:7", "beat 7"]);
    assert_eq!(reader.next(at(499)), None);
    assert_eq!(reader.due_at(), Some(at(500)));
    let (said, mut reader) = read_in(reader, b"B", 9, at(499));
    assert!(said.is_empty());
    assert_eq!(reader.next(at(500)), Some(Event::Lost(Lost::Silent)));
    reader.end(Lost::Closed);
    assert_eq!(reader.next(at(500)), None);
    let mut reader = new();
    reader.end(Lost::Closed);
    assert_eq!(reader.next(at(0)), Some(Event::Lost(Lost::Closed)));
    assert_eq!(reader.next(at(0)), None);
}

/// Lines that wait on their way are heard, but tell of the past.
#[test]
fn who_is_behind_knows_it_by_the_clock_of_the_node() {
    let begun = Instant::now();
    let at = |ms: u64| begun + MS * ms as u32;
    let ask = Ask::default().silence(100 * MS).behind(100 * MS);
    let new = |now| Reader::new(ask.clone(), None, now);
    let (_, reader) = read_in(new(at(0)), b"OK\r\nFEED a1 7 5000\n", 99, at(10));
    assert_eq!(
        reader.known_until(),
        Some(at(0)),
        "no later than it was asked"
    );
    let (said, reader) = read_in(reader, b"HB 0 7 5060\n", 99, at(75));
    assert_eq!(
        (&said[..], reader.known_until()),
        (&["beat 7".to_owned()][..], Some(at(60)))
    );
    // Events alone are no news of the present.
    let (_, mut reader) = read_in(reader, b"1 8 set set k 1 0\n", 99, at(155));
    assert_eq!(reader.next(at(159)), None);
    assert_eq!(reader.due_at(), Some(at(160)));
    assert_eq!(reader.next(at(160)), Some(Event::Lost(Lost::Behind)));
    // Heartbeats that come one after the other, each later than it was sent.
    let (mut said, mut reader) = read_in(new(at(0)), b"OK\r\nFEED a1 7 5000\n", 99, at(10));
    for (sent, heard) in [(20, 30), (40, 80), (60, 130), (80, 180)] {
        let more;
        let line = format!("HB 0 7 {}\n", 5000 + sent);
        (more, reader) = read_in(reader, line.as_bytes(), 99, at(heard));
        said.extend(more);
    }
    assert_eq!(said[1..], ["beat 7", "beat 7", "beat 7", "lost behind"]);
    // A clock that goes backwards, or far ahead, is believed no more than the reader's own.
    let (_, reader) = read_in(
        new(at(0)),
        b"OK\r\nFEED a1 7 5000\nHB 0 7 4000\n",
        99,
        at(10),
    );
    assert_eq!(reader.known_until(), Some(at(0)));
    let line = format!("HB 0 7 {}\n", u64::MAX);
    let (_, reader) = read_in(reader, line.as_bytes(), 99, at(20));
    assert_eq!(reader.known_until(), Some(at(20)));
    // A node that does not tell the time.
    let (_, reader) = read_in(new(at(0)), b"OK\r\nFEED a1 7\nHB 0 7\n", 99, at(10));
    assert_eq!(reader.known_until(), Some(at(10)));
}
