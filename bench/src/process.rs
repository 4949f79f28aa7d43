//! What Linux says of a process.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Child;

/// Processor time that the process has used, user and system.
///
/// # Errors
/// It has ended.
pub fn cpu(child: &Child) -> Result<Duration> {
    /// Ticks per second of `/proc`, which is the same on every Linux.
    const HZ: f64 = 100.0;
    let stat = read(child, "stat")?;
    // `pid (name) state …`: user and system time are the 12th and 13th after the name.
    let (_, rest) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let ticks = |n: usize| -> Result<f64> {
        Ok(rest
            .split_whitespace()
            .nth(n)
            .context("too few fields in /proc/PID/stat")?
            .parse()?)
    };
    Ok(Duration::from_secs_f64((ticks(11)? + ticks(12)?) / HZ))
}

/// Resident set of the process now, in MiB.
///
/// # Errors
/// It has ended.
pub fn resident_mib(child: &Child) -> Result<f64> {
    status_mib(child, "VmRSS:")
}

/// Highest resident set of the process so far, in MiB.
///
/// # Errors
/// It has ended.
pub fn peak_mib(child: &Child) -> Result<f64> {
    status_mib(child, "VmHWM:")
}

fn status_mib(child: &Child, field: &str) -> Result<f64> {
    let status = read(child, "status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("no {field} in /proc/PID/status"))? / 1024.0)
}

fn read(child: &Child, file: &str) -> Result<String> {
    let path = format!("/proc/{}/{file}", child.id().context("the process has ended")?);
    std::fs::read_to_string(&path).context(path)
}
