//! A line that takes its time: passes the bytes of TCP connections on, each some milliseconds after it has come, both ways. For machines
//! whose kernel has no netem.
//!
//! ```text
//!  delay_line LISTEN_HOST:PORT TARGET_HOST:PORT MILLISECONDS
//! ```

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [listen, target, ms] = &words[..] else {
        return Err("delay_line LISTEN_HOST:PORT TARGET_HOST:PORT MILLISECONDS".into());
    };
    let delay = Duration::from_millis(ms.parse()?);
    for near in TcpListener::bind(listen)?.incoming() {
        let near = near?;
        let target = target.clone();
        thread::spawn(move || {
            let Ok(far) = TcpStream::connect(target) else {
                return;
            };
            for (from, to) in [(&near, &far), (&far, &near)] {
                if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
                    let _ = to.set_nodelay(true);
                    pass(from, to, delay);
                }
            }
        });
    }
    Ok(())
}

/// One way: a thread that reads, and one that writes when it is time.
fn pass(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    // What is on its way takes memory: so many pieces at most.
    let (pieces, due) = mpsc::sync_channel::<(Instant, Vec<u8>)>(4096);
    thread::spawn(move || {
        for (at, piece) in due {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let at = Instant::now() + delay;
            if pieces.send((at, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
    });
}
