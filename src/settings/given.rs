//! From arguments to the options they give, in their order.

use std::path::PathBuf;

use getopts::{Fail, HasArg, Occur};

use super::options::{Kind, OPTIONS, Opt, not_built_reason};
use super::{Settings, SettingsError, extended};

/// One option as it was given, on the command line or in the config file.
pub(super) struct Given {
    pub opt: &'static Opt,
    /// Empty for a flag, and for an extended option without `=`.
    pub value: String,
    /// As it stands in an error.
    label: String,
    at: Option<(PathBuf, usize)>,
    /// A flag that was handed a value.
    surplus: bool,
}

impl Given {
    pub fn is(&self, long: &str) -> bool {
        self.opt.long == long
    }

    /// Whether both are the same option.
    pub fn same(&self, other: &Given) -> bool {
        self.opt.long == other.opt.long
    }

    /// Whether giving the option twice means more of it, not another value.
    pub fn adds_up(&self) -> bool {
        self.is("listen") || self.is("verbose")
    }

    pub fn apply(&self, settings: &mut Settings) -> Result<(), SettingsError> {
        match &self.opt.kind {
            Kind::Flag(_) if self.surplus => Err(self.error("takes no value")),
            Kind::Flag(apply) => {
                apply(settings);
                Ok(())
            }
            Kind::Value { set, .. } => {
                set(settings, &self.value).map_err(|reason| self.error(reason))
            }
            Kind::NotBuilt { what, .. } => Err(self.error(not_built_reason(what))),
        }
    }

    /// An error about this option.
    pub fn error(&self, reason: impl Into<String>) -> SettingsError {
        SettingsError {
            at: self.at.clone(),
            option: self.label.clone(),
            reason: reason.into(),
        }
    }
}

/// Finds the options in `args`, in the order given, with `-o` taken apart. `at` is where `args` stand in the config file.
pub(super) fn split(
    args: &[String],
    at: Option<(PathBuf, usize)>,
) -> Result<Vec<Given>, SettingsError> {
    let mut parser = getopts::Options::new();
    for opt in OPTIONS {
        let has_arg = if opt.takes_value() {
            HasArg::Yes
        } else {
            HasArg::No
        };
        parser.opt(opt.short, opt.long, "", "", has_arg, Occur::Multi);
    }
    let refused = |option: String, reason: &str| SettingsError {
        at: at.clone(),
        option,
        reason: reason.to_owned(),
    };
    let found = parser.parse(args).map_err(|fail| match fail {
        Fail::UnrecognizedOption(name) => refused(dashed(&name), "unknown option"),
        Fail::ArgumentMissing(name) => refused(dashed(&name), "needs a value"),
        Fail::UnexpectedArgument(name) => refused(dashed(&name), "takes no value"),
        Fail::OptionMissing(name) | Fail::OptionDuplicated(name) => {
            refused(dashed(&name), "given wrongly")
        }
    })?;
    if let Some(word) = found.free.first() {
        return Err(refused(word.clone(), "not an option"));
    }

    let mut given = Vec::new();
    for opt in OPTIONS {
        if opt.takes_value() {
            given.extend(
                found
                    .opt_strs_pos(opt.long)
                    .into_iter()
                    .map(|(pos, value)| (pos, opt, value)),
            );
        } else {
            given.extend(
                found
                    .opt_positions(opt.long)
                    .into_iter()
                    .map(|pos| (pos, opt, String::new())),
            );
        }
    }
    given.sort_by_key(|(pos, ..)| *pos);

    let mut all = Vec::new();
    for (_, opt, value) in given {
        if opt.long == "extended" {
            extended::split(&value, |opt, label, value, surplus| {
                all.push(Given {
                    opt,
                    value,
                    label,
                    at: at.clone(),
                    surplus,
                });
            })
            .map_err(|(option, reason)| refused(option, reason))?;
        } else {
            let mut label = dashed(if opt.short.is_empty() {
                opt.long
            } else {
                opt.short
            });
            if opt.takes_value() {
                label = format!("{label} {value}");
            }
            all.push(Given {
                opt,
                value,
                label,
                at: at.clone(),
                surplus: false,
            });
        }
    }
    Ok(all)
}

/// An option's name with its dashes.
fn dashed(name: &str) -> String {
    if name.chars().count() == 1 {
        format!("-{name}")
    } else {
        format!("--{name}")
    }
}
