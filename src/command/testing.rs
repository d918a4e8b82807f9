//! What the tests of the commands share: a server without sockets.

use super::output::Output;
use super::session::{Next, Session};
use crate::auth::Auth;
use crate::cache::Cache;
use crate::cache::testing::{small_cache, small_cache_with};
use crate::settings::Settings;
use crate::state::Shared;

/// A server with a small cache, whose clock stands still.
pub(super) struct Server {
    pub(super) shared: Shared,
}

impl Server {
    pub(super) fn start() -> Self {
        Server::with(Settings::default())
    }

    pub(super) fn with(settings: Settings) -> Self {
        Server::over(settings, small_cache(16))
    }

    /// One whose items have no CAS uniques.
    pub(super) fn without_cas() -> Self {
        Server::over(Settings::default(), small_cache_with(16, false))
    }

    /// One with this cache.
    pub(super) fn over(settings: Settings, cache: Cache) -> Self {
        let shared = Shared::new(settings, cache, |_| {});
        shared.clock.pause(true);
        Server { shared }
    }

    /// One that asks for a password.
    pub(super) fn with_users(users: &str) -> Self {
        let Server { shared } = Server::start();
        Server {
            shared: shared.with_auth(Some(Auth::of(users))),
        }
    }

    /// Lets time pass.
    pub(super) fn pass(&self, seconds: i64) {
        self.shared.clock.shift(seconds);
    }

    /// The replies to `input` as a connection of its own would get them.
    pub(super) fn ask(&self, input: &str) -> String {
        String::from_utf8(self.ask_worker(0, input.as_bytes())).expect("the tests' data is text")
    }

    /// The same of any bytes, by a worker of that number.
    pub(super) fn ask_worker(&self, worker: usize, input: &[u8]) -> Vec<u8> {
        let (mut session, mut out) = (Session::new(), Output::new());
        let (mut at, mut replies) = (0, Vec::new());
        loop {
            let drive = session.drive(self.shared.ctx(worker), &input[at..], &mut 100, &mut out);
            at += drive.consumed;
            while !out.is_empty() {
                let mut slices = Vec::new();
                out.slices(&mut slices);
                let written = slices.iter().map(|slice| slice.len()).sum();
                for slice in slices {
                    replies.extend_from_slice(&slice);
                }
                out.advance(written);
            }
            if drive.next == Next::Verify {
                self.shared.auth.as_ref().expect("users").verify_queued();
            }
            if matches!(drive.next, Next::Read | Next::Close | Next::HangUp) {
                return replies;
            }
        }
    }

    /// Asks each request of `table` and compares the reply. `|` stands for a line end in both.
    #[track_caller]
    pub(super) fn check(&self, table: &[(&str, &str)]) {
        for (request, reply) in table {
            let got = self.ask(&format!("{}\r\n", request.replace('|', "\r\n")));
            assert_eq!(got.replace("\r\n", "|"), *reply, "{request}");
        }
    }
}
