//! Recordings without a fault, one per variant of a format that is read.

use super::*;
use dvs_stream::codec::Compression;

pub fn recordings() -> Vec<Recording> {
    [aedat2(), aedat1(), aedat3(), aedat4(), nmnist(), npy_plain(), npy_structured(), csv(), wire()]
        .into_iter()
        .flatten()
        .map(|(file, what, bytes, events)| Recording { file, what, bytes, events, error: "" })
        .collect()
}

type Row = (&'static str, &'static str, Vec<u8>, Vec<Event>);

const DVS128: &str = "# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128";
const DAVIS240: &str = "# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C";
const END: &str = "#End Of ASCII Header";

fn aedat2() -> Vec<Row> {
    let events = events(24);
    let head = lines(&["#!AER-DAT2.0", "# created Tue Apr 29 11:36:59 CEST 2008"]);
    let plain = [head, words(&events, dvs128)].concat();
    let head = lines(&["#!AER-DAT2.1", "# made with care", DVS128]);
    let external = [head, word(0x8000, 1), words(&events, dvs128), word(0x8001, 2)].concat();
    // y = 140 makes 0x23, the sign of a header line, the first byte of the data.
    let hash = moved(&events, 0, 140);
    let head = lines(&["#!AER-DAT2.0", DAVIS240, END]);
    let with_hash = [head, words(&hash, davis)].concat();
    let head = lines(&["#!AER-DAT2.0", DAVIS240]);
    let without_end = [head, words(&hash, davis)].concat();
    let far = moved(&events, 300, 200);
    let head = lines(&["#!AER-DAT2.0", "# AEChip: eu.seebetter.ini.chips.davis.Davis346blue"]);
    let aside = [word(0x8000_0000, 9), word(0x8000_0400, 9), word(0x8000_0C00, 9), word(0x400, 9)];
    let mixed = [head, aside.concat(), words(&far, davis), aside.concat()].concat();
    let late = later(&events, (1 << 32) - 4000);
    let wrap = [lines(&["#!AER-DAT2.0"]), words(&late, dvs128)].concat();
    vec![
        ("aedat2-plain.aedat", "no chip named; as POKER-DVS", plain, events.clone()),
        ("aedat2-dvs128.aedat", "version 2.1 with external words", external, events),
        ("aedat2-hash.aedat", "first data byte 0x23 after the end mark", with_hash, hash.clone()),
        ("aedat2-hash-unmarked.aedat", "first data byte 0x23 and no end mark", without_end, hash),
        ("aedat2-davis346.aedat", "image and inertial and external words", mixed, far),
        ("aedat2-wrap.aedat", "the clock runs over", wrap, late),
    ]
}

fn aedat1() -> Vec<Row> {
    let events = events(24);
    let marked = [lines(&["#!AER-DAT1.0"]), short_words(&events)].concat();
    vec![
        ("aedat1-marked.dat", "with a header", marked, events.clone()),
        ("aedat1-headerless.dat", "without a header", short_words(&events), events),
    ]
}

fn aedat3() -> Vec<Row> {
    let events = events(24);
    let far = moved(&events, 200, 150);
    let (first, second) = far.split_at(10);
    let later = later(second, 1 << 31);
    let mut invalid = Packet::polarity(first);
    invalid.body =
        first.iter().flat_map(|event| [polarity(event, 0), polarity(event, 1)].concat()).collect();
    (invalid.capacity, invalid.number) = (20, 20);
    let mut roomy = Packet::polarity(&later);
    roomy.capacity += 2;
    roomy.body.extend_from_slice(&[0xEE; 16]);
    let packets = [
        Packet::other(0, 8, 2).bytes(),
        invalid.bytes(),
        Packet::other(3, 36, 1).bytes(),
        Packet::other(2, 60, 1).bytes(),
        roomy.bytes(),
        Packet::other(12, 8, 1).bytes(),
    ];
    let head = lines(&["#!AER-DAT3.1", "#Format: RAW", "#Source 1: DAVIS240C", "#!END-HEADER"]);
    let mixed = [head, packets.concat()].concat();
    let head = lines(&["#!AER-DAT3.0", "#Format: RAW", "#Source 1: DVS128"]);
    let old = [head, Packet::polarity(&events).bytes()].concat();
    let head = lines(&["#!AER-DAT3.1", "#Format: RAW", "#!END-HEADER"]);
    let sizeless = [head, Packet::polarity(&events).bytes()].concat();
    let mut second = Packet::polarity(&events);
    second.source = 2;
    let sources = ["#!AER-DAT3.1", "#Source 1: DVS128", "#Source 2: DAVIS346", "#!END-HEADER"];
    let both = [lines(&sources), Packet::polarity(&events).bytes(), second.bytes()].concat();
    vec![
        (
            "aedat3-mixed.aedat",
            "packets of all kinds; invalid events; room left",
            mixed,
            [first, &later].concat(),
        ),
        ("aedat3-0.aedat", "version 3.0 without an end mark", old, events.clone()),
        ("aedat3-sizeless.aedat", "no Source line", sizeless, events.clone()),
        ("aedat3-sources.aedat", "two cameras: the first is taken", both, events),
    ]
}

fn aedat4() -> Vec<Row> {
    let events = events(24);
    let with = |compression| super::aedat4(&events, compression, true);
    vec![
        ("aedat4-none.aedat4", "not compressed", with(Compression::None), events.clone()),
        ("aedat4-lz4.aedat4", "LZ4", with(Compression::Lz4), events.clone()),
        ("aedat4-lz4-high.aedat4", "LZ4 high", with(Compression::Lz4High), events.clone()),
        ("aedat4-zstd.aedat4", "Zstandard", with(Compression::Zstd), events.clone()),
        ("aedat4-zstd-high.aedat4", "Zstandard high", with(Compression::ZstdHigh), events.clone()),
        (
            "aedat4-unpatched.aedat4",
            "the table's place is not told",
            super::aedat4(&events, Compression::None, false),
            events,
        ),
    ]
}

fn nmnist() -> Vec<Row> {
    let events = events(24);
    let (first, second) = events.split_at(10);
    let overflow = [short_events(first), vec![0, 240, 0, 0, 0], short_events(second)].concat();
    let late = [first, &later(second, 1 << 13)].concat();
    vec![
        ("nmnist-plain.bin", "as N-MNIST", short_events(&events), events.clone()),
        ("nmnist-overflow.bin", "the clock runs over", overflow, late),
    ]
}

fn npy_plain() -> Vec<Row> {
    let events = events(24);
    let plain = npy("'<i8'", false, "(24, 4)", &rows(&events, i64::to_le_bytes));
    let big = npy("'>i4'", false, "(24, 4)", &rows(&events, |n| (n as i32).to_be_bytes()));
    let float = npy("'<f8'", false, "(24, 4)", &rows(&events, |n| (n as f64).to_le_bytes()));
    let small = npy("'<u2'", false, "(24, 4)", &rows(&events, |n| (n as u16).to_le_bytes()));
    let columns: Vec<u8> = (0..4)
        .flat_map(|column| events.iter().map(move |event| txyp(event)[column] as i32))
        .flat_map(i32::to_le_bytes)
        .collect();
    let fortran = npy("'<i4'", true, "(24, 4)", &columns);
    let mut version2 = npy("'<i8'", false, "(24, 4)", &[]);
    version2
        .splice(6..10, [&[2, 0], ((version2.len() - 10) as u32).to_le_bytes().as_slice()].concat());
    version2.extend(rows(&events, i64::to_le_bytes));
    let empty = npy("'<i8'", false, "(0, 4)", &[]);
    vec![
        ("npy-plain.npy", "int64 rows of t x y p as Tonic's POKERDVS", plain, events.clone()),
        ("npy-big-endian.npy", "int32 rows; big endian", big, events.clone()),
        ("npy-float.npy", "float64 rows", float, events.clone()),
        ("npy-small.npy", "uint16 rows", small, events.clone()),
        ("npy-fortran.npy", "int32 columns one after another", fortran, events.clone()),
        ("npy-version2.npy", "a header of version 2", version2, events),
        ("npy-empty.npy", "no rows", empty, Vec::new()),
    ]
}

fn npy_structured() -> Vec<Row> {
    let events = events(24);
    let descr = "[('x', '<i2'), ('y', '<i2'), ('t', '<i8'), ('p', '|b1')]";
    let record = |event: &Event| {
        let [t, x, y, p] = txyp(event);
        let pixel = [(x as i16).to_le_bytes(), (y as i16).to_le_bytes()].concat();
        [pixel.as_slice(), &t.to_le_bytes(), &[p as u8]].concat()
    };
    let tonic = npy(descr, false, "(24,)", &events.iter().flat_map(record).collect::<Vec<_>>());
    let descr =
        "[('timestamp', '>u8'), ('', '|V3'), ('polarity', '|i1'), ('x', '<f4'), ('y', '>u2')]";
    let record = |event: &Event| {
        let [t, x, y, p] = txyp(event);
        let start = [t.to_be_bytes().as_slice(), &[0xEE; 3], &[(2 * p - 1) as u8]].concat();
        [start.as_slice(), &(x as f32).to_le_bytes(), &(y as u16).to_be_bytes()].concat()
    };
    let odd = npy(descr, false, "(24,)", &events.iter().flat_map(record).collect::<Vec<_>>());
    vec![
        (
            "npy-structured.npy",
            "x y t p in one structure as Tonic makes them",
            tonic,
            events.clone(),
        ),
        ("npy-odd.npy", "other names and types; padding; polarity -1 and 1", odd, events),
    ]
}

fn csv() -> Vec<Row> {
    let events = events(24);
    let table = |head: &str, line: fn(&Event) -> String| {
        [head.to_owned(), events.iter().map(line).collect()].concat().into_bytes()
    };
    let faery = table("t,x@35,y@35,on\n", |event| {
        let [t, x, y, p] = txyp(event);
        format!("{t},{x},{y},{p}\n")
    });
    let plain = table("", |event| {
        let [t, x, y, p] = txyp(event);
        format!("{t},{x},{y},{}\r\n", 2 * p - 1)
    });
    let odd = table("x, y, polarity, id, timestamp\n\n", |event| {
        let [t, x, y, p] = txyp(event);
        format!("{x}, {y}, {}, 7, {t}\n", if p == 1 { "True" } else { "False" })
    });
    vec![
        ("csv-faery.csv", "names and size as faery writes them", faery, events.clone()),
        ("csv-plain.csv", "no names; polarity -1 and 1", plain, events.clone()),
        ("csv-odd.csv", "another order and one column more", odd, events.clone()),
    ]
}

/// Formats of the network.
fn wire() -> Vec<Row> {
    let events = events(24);
    let wrapping = later(&events, (1 << 32) - events[11].t_us);
    let mut far = later(&events, 1_589_163_147_368_868);
    far[20].t_us = Event::MAX_T_US;
    vec![
        ("dv-none.dv", "not compressed", dv(&events, Compression::None), events.clone()),
        ("dv-lz4.dv", "LZ4", dv(&events, Compression::Lz4), events.clone()),
        ("dv-zstd.dv", "Zstandard", dv(&events, Compression::Zstd), events),
        ("faery-t64.bin", "absolute times and the latest of all", faery_t64(&far), far),
        ("faery-t32.bin", "the clock wraps", faery_t32(&wrapping), wrapping.clone()),
        ("spif.bin", "the clock wraps", spif(&wrapping), wrapping),
    ]
}

fn moved(events: &[Event], x: u16, y: u16) -> Vec<Event> {
    events.iter().map(|event| Event { x: event.x + x, y: event.y % 4 + y, ..*event }).collect()
}

fn later(events: &[Event], t_us: u64) -> Vec<Event> {
    events.iter().map(|event| Event { t_us: event.t_us + t_us, ..*event }).collect()
}
