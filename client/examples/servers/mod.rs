//! Servers for the examples: `KETCH_SERVER`, or the memcached of this machine, on loopback and free ports.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::Duration;

use ketch_client::Node;

/// A server that ends with its value.
pub struct Server {
    child: Child,
    pub node: Node,
}

impl Server {
    pub fn start() -> Server {
        let socket = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let port = socket.local_addr().expect("it is bound").port();
        drop(socket);
        let program = std::env::var("KETCH_SERVER").unwrap_or("memcached".to_owned());
        let mut command = Command::new(&program);
        command.args(["-l", "127.0.0.1", "-U", "0", "-u", "root", "-t", "2", "-p"]);
        let child = command.arg(port.to_string()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{program}: {error}"));
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Server {
            child,
            node: Node::new("127.0.0.1", port),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
