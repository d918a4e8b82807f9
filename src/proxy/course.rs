//! What is done with the keys of one request: the pools that it is about, as they are when it begins.

use std::sync::Arc;

use super::carry::Over;
use super::file::Split;
use super::plan::Control;
use super::routes::Route;

/// See the module.
#[derive(Debug)]
pub(super) struct Course {
    /// Where the keys are.
    pub(super) main: Over,
    /// Where they are while their nodes do not answer.
    pub(super) gutter: Option<Over>,
    /// Where what the main pool lacks may be.
    pub(super) warm: Option<Warm>,
    pub(super) split: Option<Split>,
    /// Pools where what is changed is deleted, since others may have put it there already.
    pub(super) deletes: Vec<Over>,
    /// Pools that are told deletes, and waited for.
    pub(super) told: Vec<Over>,
    /// None for a request to a pool alone.
    pub(super) route: Option<Arc<Route>>,
    pub(super) control: Arc<Control>,
}

/// A pool that has values from before.
#[derive(Debug)]
pub(super) struct Warm {
    pub(super) over: Over,
    /// Others read it: it is kept up. Else what is changed is deleted there.
    pub(super) keeps: bool,
}

impl Course {
    /// This pool and no other.
    pub(super) fn over(main: Over, control: Arc<Control>) -> Self {
        Course {
            main,
            gutter: None,
            warm: None,
            split: None,
            deletes: Vec::new(),
            told: Vec::new(),
            route: None,
            control,
        }
    }
}
