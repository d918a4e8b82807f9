//! Readers of what happens in a server: of the feed, whose numbers must have no holes, and of lines for people, taken slowly.

use std::io;
use std::time::Duration;

use crate::Run;
use crate::wire::{Wire, is_end};

/// Follows a server's feed, and goes on behind what it has seen when the connection ends.
pub fn follow(run: &Run, port: u16) {
    let mut place = None;
    while !run.is_over() {
        match follow_once(run, port, &mut place) {
            Ok(()) => {}
            Err(error) if is_end(&error) => {}
            Err(error) => run.fault(format!("feed of port {port}: {error}")),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wrong(line: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("after its place: {line}"),
    )
}

fn follow_once(run: &Run, port: u16, place: &mut Option<(String, u64)>) -> io::Result<()> {
    let mut wire = Wire::connect(port)?;
    let from = place
        .as_ref()
        .map(|(epoch, seq)| format!(" from={epoch}:{seq}"));
    wire.send(format!("watch feed heartbeat=200{}\r\n", from.unwrap_or_default()).as_bytes())?;
    if wire.line()? != "OK" {
        return Err(wrong("no OK"));
    }
    let mut count = 0;
    while !run.is_over() {
        let line = wire.line()?;
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| {
            words
                .get(at)
                .and_then(|word| word.parse::<u64>().ok())
                .ok_or_else(|| wrong(&line))
        };
        match (words[0], &mut *place) {
            ("FEED", place) => *place = Some((words[1].to_owned(), number(2)?)),
            ("GAP", Some((_, seq))) => *seq = number(1)?,
            ("HB", Some((_, seq))) => {
                if number(1)? != count || number(2)? < *seq {
                    return Err(wrong(&line));
                }
                *seq = number(2)?;
            }
            (_, Some((_, seq))) => {
                count += 1;
                if number(0)? != count || number(1)? != *seq + 1 {
                    return Err(wrong(&line));
                }
                *seq += 1;
                run.count_event();
            }
            (_, None) => return Err(wrong(&line)),
        }
    }
    Ok(())
}

/// Takes the lines for people, now and then.
pub fn watch(run: &Run, port: u16) {
    while !run.is_over() {
        let watched = Wire::connect(port).and_then(|mut wire| {
            wire.send(b"watch fetchers mutations evictions connevents\r\n")?;
            // There is always something to see, until the run is over.
            wire.patience(Duration::from_secs(5))?;
            while !run.is_over() {
                for _ in 0..2000 {
                    wire.line()?;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        });
        if let Err(error) = watched
            && !is_end(&error)
            && !run.is_over()
        {
            run.fault(format!("watcher of port {port}: {error}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
