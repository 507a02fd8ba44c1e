//! Every bound of the log, with the relations between them.

use std::time::Duration;

/// Bytes of a record's head.
pub const HEAD_BYTES_MAX: u64 = 256 * 1024;
/// Bytes of a record's body, all pieces together.
pub const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a value's name.
pub const NAME_BYTES_MAX: u64 = 1024;
/// Bytes of one named value.
pub const VALUE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Bytes of all named values with their names. Each new segment starts with a copy of them.
pub const VALUES_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of one commit as written, headers included.
pub const COMMIT_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Operations of one commit.
pub const COMMIT_OPS_MAX: usize = 65_536;
/// Bytes after which the writer closes a group and syncs it, unless one commit alone is larger.
pub const GROUP_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Released keys that are remembered while segments with their records are still on disk. Beyond it the lowest keys are forgotten,
/// and may reappear at the next start.
pub const CARRIED_RELEASES_MAX: usize = 262_144;
/// Segment files held open for reading.
pub const OPEN_FILES_MAX: usize = 64;
/// The smallest size of a segment, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 4 * 1024;
/// The largest size of a segment, in bytes. Recovery reads a segment without a footer into memory as a whole.
pub const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// The default size of a segment, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// The default of the reserve is a twentieth of the quota, but not less than this...
pub const RESERVE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// ...and never more than this share of the quota.
pub const RESERVE_SHARE_MAX: u64 = 4;
/// One that is asked for may be this share, so that intake has as much.
pub const QUOTA_PER_RESERVE: u64 = 2;
/// Copies leave this share of the reserve to what finishes.
pub const COPY_RESERVE_SHARE: u64 = 2;
/// Pause between two tries to begin a segment on a full file system.
pub const ROOM_RETRY: Duration = Duration::from_millis(500);
/// For how long intake counts as full after a segment could not be begun: the file system may say that it has space and give none.
pub const NO_SPACE_PAUSE: Duration = Duration::from_secs(2);
/// Intake must be able to fill at least so many segments, else a full log could hardly free one.
pub const INTAKE_SEGMENTS_MIN: u64 = 4;
/// The smallest quota: intake of the smallest segments plus the reserve.
pub const QUOTA_BYTES_MIN: u64 = 2 * INTAKE_SEGMENTS_MIN * SEGMENT_BYTES_MIN;

const _: () = assert!(
    HEAD_BYTES_MAX + BODY_BYTES_MAX < COMMIT_BYTES_MAX,
    "the largest record fits a commit"
);
const _: () = assert!(NAME_BYTES_MAX <= HEAD_BYTES_MAX, "a name is written as a head");
const _: () = assert!(VALUE_BYTES_MAX <= BODY_BYTES_MAX, "a value is written as a body");
const _: () = assert!(VALUE_BYTES_MAX <= VALUES_BYTES_MAX, "one value fits the table");
const _: () = assert!(
    BODY_BYTES_MAX <= u32::MAX as u64,
    "lengths are written as 32 bits"
);
const _: () =
    assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_DEFAULT && SEGMENT_BYTES_DEFAULT <= SEGMENT_BYTES_MAX);
const _: () = assert!(
    ROOM_RETRY.as_millis() < NO_SPACE_PAUSE.as_millis(),
    "intake stays away while what finishes is tried"
);
const _: () = assert!(
    COPY_RESERVE_SHARE > 1,
    "copies get more than intake, and leave some"
);
const _: () = assert!(
    CARRIED_RELEASES_MAX * 28 <= BODY_BYTES_MAX as usize,
    "carried releases fit one frame"
);
