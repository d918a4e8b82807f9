use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;

use super::files::is_alive;
use super::*;

/// A path of this test alone.
fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("ketch-sys-{}-{name}", process::id()))
}

#[test]
fn signals_become_events_also_when_they_came_before_the_wait() {
    let mut signals = Signals::new().unwrap();
    for event in [Event::Reload, Event::StopGracefully, Event::Stop] {
        raise(event);
        assert_eq!(signals.wait(), event);
    }
    raise(Event::Stop);
    raise(Event::Reload);
    let both = [signals.wait(), signals.wait()];
    assert!(
        both.contains(&Event::Stop) && both.contains(&Event::Reload),
        "{both:?}"
    );
}

#[test]
fn pid_file_holds_our_pid_until_dropped() {
    let path = scratch("pid");
    fs::write(&path, "1\n").unwrap();
    let file = PidFile::write(&path, false).unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("{}\n", process::id())
    );
    drop(file);
    assert!(!path.exists());
}

#[test]
fn pid_file_of_another_is_left_alone() {
    let path = scratch("pid-taken");
    let file = PidFile::write(&path, false).unwrap();
    fs::write(&path, "1\n").unwrap();
    drop(file);
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_process_is_alive_or_not() {
    assert!(is_alive(process::id()));
    assert!(is_alive(1));
    assert!(!is_alive(0));
    assert!(!is_alive(u32::MAX));
    let mut child = process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    assert!(!is_alive(child.id()));
}

#[test]
fn port_file_has_a_line_for_each_address() {
    let path = scratch("ports");
    let tcp = [
        "127.0.0.1:11211".parse().unwrap(),
        "[::1]:11212".parse().unwrap(),
    ];
    let udp = ["127.0.0.1:11213".parse().unwrap()];
    write_port_file(&path, &[("TCP", &tcp), ("UDP", &udp)]).unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "TCP INET: 11211\nTCP INET6: 11212\nUDP INET: 11213\n"
    );
    fs::remove_file(&path).unwrap();
}

#[test]
fn what_is_written_beside_goes_through_no_link() {
    let (path, other) = (scratch("beside"), scratch("beside-other"));
    fs::write(&other, "theirs").unwrap();
    let beside = format!("{}.lck", path.display());
    std::os::unix::fs::symlink(&other, &beside).unwrap();
    write_port_file(&path, &[]).unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), "theirs");
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    fs::remove_file(&path).unwrap();
    fs::remove_file(&other).unwrap();
}

#[test]
fn a_place_is_roots_own_if_nobody_else_writes_there() {
    for (path, own) in [
        ("/log", true),
        ("/proc/log", true),
        ("/tmp/log", false),
        ("/no/such/directory", false),
    ] {
        assert_eq!(is_roots_own(Path::new(path)), own, "{path}");
    }
}

#[test]
fn umask_holds_while_the_guard_lives() {
    let mode = |name| {
        let path = scratch(name);
        File::create(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        fs::remove_file(&path).unwrap();
        mode
    };
    let before = mode("umask-before");
    let guard = Umask::allow(0o640);
    assert_eq!(mode("umask-held"), 0o640);
    drop(guard);
    assert_eq!(mode("umask-after"), before);
}

#[test]
fn open_files_are_raised_never_lowered() {
    let now = raise_open_files(0).unwrap();
    assert!(raise_open_files(now).unwrap() >= now);
    assert!(raise_open_files(now + 1).unwrap() >= now);
}

#[test]
fn users_are_found_by_name() {
    assert_eq!(User::find("root").unwrap().uid, 0);
    assert_eq!(
        User::find("no-such-user").err().unwrap(),
        "-u no-such-user: no such user"
    );
    assert_eq!(User::find("a\0b").err().unwrap(), "-u a\0b: no such user");
    let numbered = User::find("11211").unwrap();
    assert_eq!((numbered.uid, numbered.gid), (11211, 11211));
    assert!(numbered.name.is_none());
}

#[test]
fn a_bound_socket_is_known() {
    let path = scratch("bound");
    assert_eq!(is_socket_bound(&path), Some(false));
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert_eq!(is_socket_bound(&path), Some(true));
    drop(socket);
    assert_eq!(is_socket_bound(&path), Some(false));
    fs::remove_file(&path).unwrap();
}
