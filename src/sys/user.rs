//! Who this process is, and becomes.

use std::ffi::CString;
use std::mem::MaybeUninit;

use super::check;

/// Ends being root, if this process is: it becomes `user`, for good. Without a user it stays root, with a warning; `-u
/// root` stays root without one. Who is not root keeps what they have.
pub fn drop_root(user: Option<&str>) -> Result<(), String> {
    if !is_root() {
        return Ok(());
    }
    let Some(name) = user else {
        log::warn!("running as root; name another user with -u, or -u root to mean it");
        return Ok(());
    };
    let user = User::find(name)?;
    if user.uid == 0 {
        return Ok(());
    }
    let refused = |err| format!("-u {name}: cannot become this user: {err}");
    // The last type of initgroups differs between systems.
    let grouped = match &user.name {
        // SAFETY: the name is a string ending in NUL that lives through the call.
        Some(name) => unsafe { libc::initgroups(name.as_ptr(), user.gid as _) },
        // SAFETY: one group, read from our own memory.
        None => unsafe { libc::setgroups(1, &user.gid) },
    };
    check(grouped).map_err(refused)?;
    // The group goes first: after setuid there is no right to change it.
    // SAFETY: plain numbers.
    check(unsafe { libc::setgid(user.gid) }).map_err(refused)?;
    // SAFETY: plain numbers.
    check(unsafe { libc::setuid(user.uid) }).map_err(refused)
}

/// Whether `uid` is root, or the user that this process is, or will be when it has become `user`.
pub fn is_own_user(uid: u32, user: Option<&str>) -> bool {
    let becomes = || user.and_then(|name| User::find(name).ok());
    uid == 0 || uid == effective_uid() || becomes().is_some_and(|user| user.uid == uid)
}

pub(super) fn is_root() -> bool {
    effective_uid() == 0
}

pub(super) fn effective_uid() -> libc::uid_t {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// A user of this machine.
pub(super) struct User {
    /// None for one that only has a number.
    pub name: Option<CString>,
    pub uid: libc::uid_t,
    pub gid: libc::gid_t,
}

impl User {
    pub fn find(name: &str) -> Result<User, String> {
        /// An entry of the user database is a few hundred bytes; its strings go here.
        const ENTRY_BYTES: usize = 16 << 10;
        let unknown = || format!("-u {name}: no such user");
        let name = CString::new(name).map_err(|_| unknown())?;
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut strings = vec![0; ENTRY_BYTES];
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are to our own memory of the length given, and outlive the call.
        let failed = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                entry.as_mut_ptr(),
                strings.as_mut_ptr(),
                strings.len(),
                &mut found,
            )
        };
        if failed != 0 || found.is_null() {
            // Containers have users that are in no database; their group has the same number.
            let number = name.to_str().ok().and_then(|name| name.parse().ok());
            return number.ok_or_else(unknown).map(|uid| User {
                name: None,
                uid,
                gid: uid,
            });
        }
        // SAFETY: a non-null `found` points to `entry`, filled in. Its strings are not looked at.
        let entry = unsafe { entry.assume_init() };
        Ok(User {
            name: Some(name),
            uid: entry.pw_uid,
            gid: entry.pw_gid,
        })
    }
}
