//! Every line memcached answers when it refuses or fails, one variant per line.
//!
//! The wording is part of the protocol: scripts and client libraries compare it letter for letter.

/// Declares the enum and its texts side by side, so that neither can be forgotten.
macro_rules! error_lines {
    ($($name:ident = $text:literal,)*) => {
        /// A line that says why a command was refused or failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorLine {
            $(#[doc = concat!("`", $text, "`")] $name,)*
        }

        impl ErrorLine {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [ErrorLine] = &[$(ErrorLine::$name,)*];

            /// The line as it goes to the client, with its `\r\n`.
            pub fn line(self) -> &'static [u8] {
                match self {
                    $(ErrorLine::$name => concat!($text, "\r\n").as_bytes(),)*
                }
            }
        }
    };
}

error_lines! {
    // The command is not known, or a word behind it is not.
    Error = "ERROR",

    // The client's mistakes in any command.
    BadFormat = "CLIENT_ERROR bad command line format",
    BadCommandLine = "CLIENT_ERROR bad command line",
    BadDataChunk = "CLIENT_ERROR bad data chunk",
    InvalidExptime = "CLIENT_ERROR invalid exptime argument",
    InvalidDelta = "CLIENT_ERROR invalid numeric delta argument",
    NonNumeric = "CLIENT_ERROR cannot increment or decrement non-numeric value",

    // The client's mistakes in meta commands.
    BadToken = "CLIENT_ERROR bad token in command line format",
    DuplicateFlag = "CLIENT_ERROR duplicate flag",
    InvalidFlag = "CLIENT_ERROR invalid flag",
    InvalidOrDuplicateFlag = "CLIENT_ERROR invalid or duplicate flag",
    TooManyFlags = "CLIENT_ERROR options flags are too long",
    OpaqueTooLong = "CLIENT_ERROR opaque token too long",
    KeyDecoding = "CLIENT_ERROR error decoding key",
    StoreMode = "CLIENT_ERROR invalid mode for ms M token",
    ArithMode = "CLIENT_ERROR invalid mode for ma M token",
    InitialValue = "CLIENT_ERROR invalid numeric initial value",
    DeltaValue = "CLIENT_ERROR invalid numeric delta value",

    // The client's mistakes in commands about the server.
    StatsDetailUsage = "CLIENT_ERROR usage: stats detail on|off|dump",
    StatsDetailNotAllowed = "CLIENT_ERROR stats detail not allowed",
    CachedumpNotAllowed = "CLIENT_ERROR stats cachedump not allowed",
    IllegalSlabId = "CLIENT_ERROR Illegal slab id",
    FlushNotAllowed = "CLIENT_ERROR flush_all not allowed",
    WatchNotAllowed = "CLIENT_ERROR watch commands not allowed",
    CrawlerDisabled = "CLIENT_ERROR lru crawler disabled",
    CrawlerSleepTooLong = "CLIENT_ERROR sleep must be one second or less",
    ReassignDisabled = "CLIENT_ERROR slab reassignment disabled",
    AutomoveWindow = "CLIENT_ERROR automove window too low or too high",
    ShutdownMode = "CLIENT_ERROR invalid shutdown mode",
    NotOverUdp = "CLIENT_ERROR not allowed over UDP",

    // Signing in with a user and a password.
    Unauthenticated = "CLIENT_ERROR unauthenticated",
    AuthTokenFormat = "CLIENT_ERROR bad authentication token format",
    AuthTokenTooLong = "CLIENT_ERROR auth token too long",
    AuthFailure = "CLIENT_ERROR authentication failure",
    AuthBusy = "SERVER_ERROR too many logins are waiting",
    BadTermination = "CLIENT_ERROR bad command line termination",

    // The server's own trouble.
    TooLarge = "SERVER_ERROR object too large for cache",
    OutOfMemoryStoring = "SERVER_ERROR out of memory storing object",
    OutOfMemoryDuringRead = "SERVER_ERROR Out of memory during read",
    OutOfMemoryNewItem = "SERVER_ERROR Out of memory allocating new item",
    OutOfMemory = "SERVER_ERROR out of memory",
    OutOfMemoryGetResponse = "SERVER_ERROR out of memory writing get response",
    OutOfMemoryStats = "SERVER_ERROR out of memory writing stats",
    OutOfMemoryRequest = "SERVER_ERROR out of memory reading request",
    LineTooLong = "SERVER_ERROR output line too long",
    RefcountOverflow = "SERVER_ERROR refcount overflow during fetch",
    UnhandledStorageType = "SERVER_ERROR Unhandled storage type.",
    ShutdownNotEnabled = "SERVER_ERROR: shutdown not enabled",
    ReplyTooLarge = "SERVER_ERROR reply too large",
    TooManyConnections = "ERROR Too many open connections",

    // What a proxy says where a node has nothing to say.
    Backend = "SERVER_ERROR backend",
    ProxyLoop = "SERVER_ERROR proxy loop",
    Busy = "SERVER_ERROR busy",
    ReadOnly = "SERVER_ERROR read only",

    // Commands about the server that cannot be obeyed.
    MemlimitTooSmall = "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m",
    MemlimitInMegabytes = "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes",
    MemlimitUnable = "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust",
    ReassignBusy = "BUSY currently processing reassign request",
    ReassignBadClass = "BADCLASS invalid src or dst class id",
    ReassignNoSpare = "NOSPARE source class has no spare pages",
    ReassignSame = "SAME src and dst class are identical",
    CrawlerBusy = "BUSY currently processing crawler request",
    CrawlerBadClass = "BADCLASS invalid class id",
    CrawlerNotStarted = "NOTSTARTED no items to crawl",
    CrawlerUnknown = "ERROR an unknown error happened",
    CrawlerStart = "ERROR failed to start lru crawler thread",
    CrawlerStop = "ERROR failed to stop lru crawler thread",
    MetadumpNotAllowed = "ERROR metadump not allowed",
    KeyDumpNotAllowed = "ERROR key dump not allowed",
    PipelinedWatch = "ERROR cannot pipeline other commands before watch",
    PipelinedMetadump = "ERROR cannot pipeline other commands before metadump",
    PipelinedMgdump = "ERROR cannot pipeline other commands before mgdump",
    LruPercents = "ERROR hot and warm pcts must not exceed 80",
    LruFactors = "ERROR hot/warm age factors must be greater than 0",
    WatcherTooMany = "WATCHER_TOO_MANY log watcher limit reached",
    WatcherFailed = "WATCHER_FAILED failed to add log watcher",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_one_line_and_no_two_are_equal() {
        for (at, error) in ErrorLine::ALL.iter().enumerate() {
            let line = error.line();
            let text = line.strip_suffix(b"\r\n").expect("a line ends with \\r\\n");
            assert!(!text.is_empty() && text.is_ascii());
            assert!(!text.iter().any(u8::is_ascii_control), "{error:?}");
            assert!(
                ErrorLine::ALL[..at]
                    .iter()
                    .all(|other| other.line() != line),
                "{error:?}"
            );
        }
    }
}
