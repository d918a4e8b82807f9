//! Clients that behave badly: they come and go, leave requests half sent, and read nothing.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ketch_testing::Rng;

use crate::Run;

/// Opens and leaves connections, most of them in the midst of something, until the end.
pub fn churn(run: &Run, ports: &[u16]) {
    let mut rng = Rng::new(77);
    let halves: [&[u8]; 8] = [
        b"",
        b"get w",
        b"set half 0 0 100000\r\nabc",
        b"ms half 5000 T0\r\nabc",
        b"\x80\x01\x00\x04\x08\x00\x00\x00\x00\x01\x00\x00",
        b"stats cachedump 1 0\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    let mut open: Vec<TcpStream> = Vec::new();
    while !run.is_over() {
        let port = ports[rng.below(ports.len() as u64) as usize];
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            run.count_connection();
            let _ = stream.write_all(halves[rng.below(8) as usize]);
            open.push(stream);
        }
        if open.len() > 100 {
            let leaver = rng.below(open.len() as u64) as usize;
            open.swap_remove(leaver);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Asks for large values again and again, and takes none of them for so long.
pub fn read_nothing(run: &Run, port: u16, count: usize, time: Duration) {
    let until = Instant::now() + time;
    let store = format!("set large 0 0 300000\r\n{}\r\n", "x".repeat(300_000));
    let streams: Vec<TcpStream> = (0..count)
        .filter_map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.write_all(store.as_bytes()).ok()?;
            stream.write_all(&b"get large\r\n".repeat(200)).ok()?;
            Some(stream)
        })
        .collect();
    while Instant::now() < until && !run.is_over() {
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(streams);
}
