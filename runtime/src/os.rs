//! The few things that only the operating system can do and that the standard
//! library does not offer.

use std::process::Command;

/// Name of this machine, or `host` where it has none that can be read.
pub fn hostname() -> String {
    let mut buffer = [0_u8; 256];
    // SAFETY: the pointer and the length are those of one buffer that lives for the call.
    let failed = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len()) } != 0;
    let length = buffer.iter().position(|byte| *byte == 0).unwrap_or(0);
    match std::str::from_utf8(&buffer[..length]) {
        Ok(name) if !failed && !name.is_empty() => name.to_owned(),
        _ => "host".to_owned(),
    }
}

/// Makes a child die with this process however it ends, even by SIGKILL, and
/// not by the terminal's Ctrl-C, so that whoever started it decides when.
///
/// Linux ends the child when the *thread* that started it ends: call `spawn`
/// from one that lives as long as the process. Elsewhere only the second half
/// is done.
pub fn tie_to_us(command: &mut Command) {
    use std::os::unix::process::CommandExt;

    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        let tie = move || {
            // SAFETY: prctl and getppid are async-signal-safe and touch no memory of ours.
            unsafe {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // The parent may have died before the call above.
                if libc::getppid().unsigned_abs() != parent {
                    return Err(std::io::Error::other("the parent has ended"));
                }
            }
            Ok(())
        };
        // SAFETY: `tie` runs between fork and exec, and does only what may be done there.
        unsafe { command.pre_exec(tie) };
    }
}

/// Asks a process to end (SIGTERM). False if there is no such process.
pub fn terminate(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return false;
    };
    // SAFETY: kill has no preconditions; a wrong pid is an error it returns.
    unsafe { libc::kill(pid, libc::SIGTERM) == 0 }
}

/// Whether a process with this number exists.
pub fn runs(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return false;
    };
    // SAFETY: kill has no preconditions; signal 0 only asks.
    let found = unsafe { libc::kill(pid, 0) } == 0;
    // Somebody else's process is one, too.
    found || std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// This boot of this machine and the space of process numbers that we are in, so that
/// two processes with the same answer can look each other up. Unique where the
/// system does not say.
pub fn machine() -> &'static str {
    static MACHINE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    MACHINE.get_or_init(|| {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let space = std::fs::read_link("/proc/self/ns/pid");
        match (boot, space) {
            (Ok(boot), Ok(space)) => format!("{} {}", boot.trim(), space.display()),
            _ => format!("{:032x}", rand::random::<u128>()),
        }
    })
}
