//! Who may do what with a file: its owner, group, mode and POSIX access list (`acl(5)`), which a save hands on.
//!
//! What must never happen here: a file that somebody may read or write who could not before.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::Path,
};

/// The permissions of one file.
pub(super) struct Permissions {
    mode: u32,
    owner: u32,
    group: u32,
    list: Option<Vec<u8>>,
}

impl Permissions {
    /// The permissions of a file, or `None` where there is no file.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        let metadata = match fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        let (mode, owner, group) = (metadata.mode() & 0o777, metadata.uid(), metadata.gid());
        Ok(Some(Self { mode, owner, group, list: list::of(path)? }))
    }

    /// Gives a new file these permissions. It must be open to nobody else before.
    ///
    /// Only a privileged process may set another owner, or a group that it is not in; a file that cannot have its
    /// group or its access list is narrowed instead.
    pub(super) fn give_to(&self, file: &File) -> io::Result<()> {
        let (owner, group) = (Some(self.owner), Some(self.group));
        let new = file.metadata()?;
        let has_group = (new.uid(), new.gid()) == (self.owner, self.group)
            || fchown(file, owner, group).or_else(|_| fchown(file, None, group)).is_ok();
        // A list grants rights to the group too. Where there is none, one may have come from the folder.
        let list = self.list.as_deref().filter(|_| has_group);
        let has_list = list::set(file, list)? && list.is_some() == self.list.is_some();

        let common = self.mode >> 3 & self.mode & 0o7;
        let mode = match (has_list, has_group) {
            (true, true) => self.mode,
            // Who was in the group may be one of the others now, and the other way round.
            (true, false) => self.mode & 0o700 | common << 3 | common,
            // Without its list nobody knows whom it kept out.
            (false, _) => self.mode & 0o700,
        };
        // Where all files have one mode, as on a share of another system, none may be set.
        if new.mode() & 0o777 == mode {
            return Ok(());
        }
        file.set_permissions(fs::Permissions::from_mode(mode))
    }
}

/// Access lists, as the bytes that Linux keeps them in.
#[cfg(target_os = "linux")]
mod list {
    use rustix::{
        buffer::spare_capacity,
        fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr, getxattr},
        io::Errno,
    };
    use std::{fs::File, io, path::Path};

    const NAME: &str = "system.posix_acl_access";
    /// The longest that an attribute can be.
    const LONGEST: usize = 64 * 1024;

    /// The list of a file, or `None` where it has none, which is asked first: for a list the kernel needs room.
    pub(super) fn of(path: &Path) -> io::Result<Option<Vec<u8>>> {
        if !is_there(getxattr(path, NAME, &mut [0; 0]))? {
            return Ok(None);
        }
        let mut list = Vec::with_capacity(LONGEST);
        Ok(is_there(getxattr(path, NAME, spare_capacity(&mut list)))?.then_some(list))
    }

    fn is_there(asked: rustix::io::Result<usize>) -> io::Result<bool> {
        match asked {
            Ok(_) => Ok(true),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Sets or removes the list of a file. Returns whether that is permitted, and possible there.
    pub(super) fn set(file: &File, list: Option<&[u8]>) -> io::Result<bool> {
        let done = match list {
            Some(list) => fsetxattr(file, NAME, list, XattrFlags::empty()),
            // Most new files have none, and to remove one is to change the file.
            None if !is_there(fgetxattr(file, NAME, &mut [0; 0]))? => return Ok(true),
            None => fremovexattr(file, NAME),
        };
        match done {
            Ok(()) => Ok(true),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(list.is_none()),
            // The last is said of a list with names that this user namespace does not have.
            Err(Errno::PERM | Errno::ACCESS | Errno::INVAL) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod list {
    pub(super) fn of(_: &std::path::Path) -> std::io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    pub(super) fn set(_: &std::fs::File, _: Option<&[u8]>) -> std::io::Result<bool> {
        Ok(true)
    }
}
