//! A node that does not let the client in (H5).

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Member;
use super::state::State;
use crate::error::{Failure, SignInError};
use crate::options::ClientOptions;

impl Member {
    /// The node does not let the client in. What is hopeless is not tried again with every call: the next try is after the
    /// pause of a first probe, then after twice that, up to the longest.
    pub fn shut(&self, error: SignInError, options: &ClientOptions, now: Instant) {
        let mut state = self.state();
        let again = state.shut.as_ref().is_none_or(|(_, until)| *until <= now);
        if again {
            log::warn!("{}: {error}", self.name);
            let twice = match state.shut {
                Some(_) => state.shut_for * 2,
                None => options.probe_after,
            };
            state.shut_for = twice.min(options.probe_after_max);
            state.shut = Some((error, now + state.shut_for));
        }
        self.unwell.store(true, Ordering::Relaxed);
    }

    /// True if it did not let the client in a moment ago.
    pub fn is_shut(&self, now: Instant) -> bool {
        let shut = |state: &State| state.shut.as_ref().is_some_and(|(_, until)| now < *until);
        self.unwell.load(Ordering::Relaxed) && shut(&self.state())
    }

    /// Why it does not let the client in.
    pub fn sign_in_error(&self) -> Option<SignInError> {
        let state = self.state();
        state.shut.as_ref().map(|(error, _)| error.clone())
    }

    /// TLS failed.
    pub fn no_tls(
        &self,
        error: &dyn std::fmt::Display,
        options: &ClientOptions,
        now: Instant,
    ) -> Failure {
        #[cfg(feature = "tls")]
        let name = options.tls.as_ref().and_then(|tls| tls.server_name.clone());
        #[cfg(not(feature = "tls"))]
        let name = None::<String>;
        let error = SignInError::Tls {
            name: name.as_deref().unwrap_or(&self.node.host).into(),
            reason: error.to_string().into(),
        };
        self.shut(error, options, now);
        Failure::SignIn
    }

    /// The node answered `line` to the login.
    pub fn no_login(&self, line: &str, options: &ClientOptions, now: Instant) {
        let user = options.login.as_ref().map_or("", |login| &login.user);
        let error = SignInError::Login {
            user: user.into(),
            line: line.into(),
        };
        self.shut(error, options, now);
    }
}
