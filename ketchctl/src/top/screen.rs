//! The live view: the terminal is taken over, and given back however the command ends.
//!
//! ```text
//!  q, an error            the drop of Screen
//!  SIGTERM and the like   a thread that gives back, and then ends the process as the signal would have
//!  a panic                a hook that gives back before the message is written, as no drop may follow
//! ```

use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, SetAttribute};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};
use ketch_client::Client;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::{Sample, view};
use crate::failure::Failure;

/// The terminal as long as it is ours.
struct Screen;

/// The terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back, once, whoever comes first. Where it is gone there is nobody to tell.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), cursor::Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// From now on signals and panics give back first.
fn guard() -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // Nothing is shown from here on: the lock is kept to the end.
                let _out = io::stdout().lock();
                give_back();
                let _ = emulate_default_handler(signal);
            }
        })?;
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        give_back();
        before(info);
    }));
    Ok(())
}

impl Screen {
    fn take() -> io::Result<Screen> {
        guard()?;
        TAKEN.store(true, Ordering::SeqCst);
        // From here on the drop gives back.
        let screen = Screen;
        terminal::enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    /// Shows as many lines as fit, the second one as a heading.
    fn show(&self, lines: &[String]) -> io::Result<()> {
        // Some terminals do not know how large they are.
        let size = terminal::size().ok();
        let size = size.filter(|&(columns, rows)| columns > 0 && rows > 0);
        let (columns, rows) = size.unwrap_or((80, 24));
        let (columns, rows) = (usize::from(columns), usize::from(rows));
        let mut out = io::stdout().lock();
        queue!(out, cursor::MoveTo(0, 0))?;
        let cut = lines.len().saturating_sub(rows);
        for (at, line) in lines.iter().take(rows).enumerate() {
            let mut line = line.clone();
            if cut > 0 && at + 1 == rows {
                line = format!(".. {} more", cut + 1);
            }
            let line: String = line.chars().take(columns).collect();
            if at == 1 {
                queue!(out, SetAttribute(Attribute::Reverse))?;
                write!(out, "{line:columns$}")?;
                queue!(out, SetAttribute(Attribute::Reset))?;
            } else {
                write!(out, "{line}")?;
                queue!(out, Clear(ClearType::UntilNewLine))?;
            }
            if at + 1 < rows {
                write!(out, "\r\n")?;
            }
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Shows the nodes until somebody presses q.
pub fn run(client: &Client, interval: Duration) -> Result<(), Failure> {
    let screen = Screen::take()?;
    let mut before = Sample::take(client);
    let mut lines = vec!["ketchctl top: a first look ..".to_owned()];
    loop {
        screen.show(&lines)?;
        let next = before.at + interval;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() || !event::poll(left)? {
                break;
            }
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    match key.code {
                        KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                        KeyCode::Char('c') if control => return Ok(()),
                        _ => {}
                    }
                }
                Event::Resize(..) => screen.show(&lines)?,
                _ => {}
            }
        }
        let now = Sample::take(client);
        let down = now.nodes.iter().filter(|(_, answer)| answer.is_err());
        lines = vec![format!(
            "ketchctl top: {} nodes, {} down, every {interval:?}; q quits",
            now.nodes.len(),
            down.count()
        )];
        lines.extend(view::table(&before, &now).lines());
        before = now;
    }
}
