//! Recordings with one fault each, and what comes of it.

use super::*;
use dvs_stream::codec::Compression;

pub fn recordings() -> Vec<Recording> {
    [aedat2(), aedat1(), aedat3(), aedat4(), nmnist(), npy_files(), csv(), wire()]
        .into_iter()
        .flatten()
        .map(|(file, what, bytes, events, error)| Recording { file, what, bytes, events, error })
        .collect()
}

type Row = (&'static str, &'static str, Vec<u8>, Vec<Event>, &'static str);

fn aedat2() -> Vec<Row> {
    let events = events(12);
    let data = words(&events, dvs128);
    let with = |head: &[&str], data: &[u8]| [lines(head), data.to_vec()].concat();
    let cut = with(&["#!AER-DAT2.0"], &data[..93]);
    let head_cut = b"#!AER-DAT2.0\r\n# created Tue A".to_vec();
    let chip =
        with(&["#!AER-DAT2.0", "# AEChip: ch.unizh.ini.jaer.chip.cochlea.CochleaAMS1c"], &data);
    let version = with(&["#!AER-DAT3.1"], &data);
    let unnamed = with(&["#!AER-DAT2.0"], &words(&events, |event| davis(event) | 0x1000_0000));
    let mut bit = data.clone();
    bit[44] ^= 0xC0;
    let mut leap = events.clone();
    leap[5].t_us |= 0xC000_0000;
    let clock = with(&["#!AER-DAT2.0"], &bit);
    vec![
        (
            "aedat2-cut.aedat",
            "ends inside an event",
            cut,
            events[..11].to_vec(),
            "ends after 5 of 8 bytes",
        ),
        (
            "aedat2-header-cut.aedat",
            "ends inside a header line",
            head_cut,
            vec![],
            "ends inside a line",
        ),
        ("aedat2-chip.aedat", "a chip that is not read", chip, vec![], "CochleaAMS1c"),
        ("aedat2-version.aedat", "another version's mark", version, vec![], "says AEDAT 3.1"),
        (
            "aedat2-unnamed.aedat",
            "a DAVIS that names no chip",
            unnamed,
            vec![],
            "most addresses fit no DVS128",
        ),
        ("aedat2-leap.aedat", "one time 54 minutes ahead", clock, leap, ""),
    ]
}

fn wire() -> Vec<Row> {
    let events = events(12);
    let but_one = [&events[..5], &events[6..]].concat();
    let t64 = faery_t64(&events);
    let changed = |bytes: &[u8], at: usize, byte: u8| {
        let mut changed = bytes.to_vec();
        changed[at] = byte;
        changed
    };
    let t32 = faery_t32(&events);
    let words = spif(&events);
    let sound = dv(&events, Compression::None);
    vec![
        (
            "faery-t64-cut.bin",
            "ends inside an event",
            t64[..100].to_vec(),
            events[..7].to_vec(),
            "ends after 9 of 13 bytes",
        ),
        (
            "faery-t64-polarity.bin",
            "a polarity of 2",
            changed(&t64, 5 * 13 + 12, 2),
            but_one.clone(),
            "",
        ),
        (
            "faery-t64-time.bin",
            "a negative time",
            changed(&t64, 5 * 13 + 7, 0x80),
            but_one.clone(),
            "",
        ),
        (
            "faery-t32-cut.bin",
            "ends inside an event",
            t32[..95].to_vec(),
            events[..11].to_vec(),
            "ends after 7 of 8 bytes",
        ),
        ("faery-t32-bit.bin", "a bit that none has", changed(&t32, 47, 0x80), but_one, ""),
        (
            "spif-cut.bin",
            "ends before a time",
            words[..92].to_vec(),
            events[..11].to_vec(),
            "ends after 4 of 8 bytes",
        ),
        (
            "spif-untimed.bin",
            "an event without a time",
            changed(&words, 43, 0x80),
            events[..5].to_vec(),
            "carries no time",
        ),
        (
            "dv-cut.dv",
            "ends inside a packet",
            sound[..sound.len() - 7].to_vec(),
            events[..11].to_vec(),
            "ends after 225 of 232 bytes",
        ),
        ("dv-hostile.dv", "a header of 1 GiB", changed(&sound, 3, 0x40), vec![], "more than the"),
    ]
}

fn aedat1() -> Vec<Row> {
    let events = events(12);
    let cut = short_words(&events)[..70].to_vec();
    vec![(
        "aedat1-cut.dat",
        "ends inside an event",
        cut,
        events[..11].to_vec(),
        "ends after 4 of 6 bytes",
    )]
}

fn aedat3() -> Vec<Row> {
    let events = events(12);
    let with = |packets: &[u8]| {
        [lines(&["#!AER-DAT3.1", "#Format: RAW", "#!END-HEADER"]), packets.to_vec()].concat()
    };
    let sound = Packet::polarity(&events).bytes();
    let changed = |change: fn(&mut Packet)| {
        let mut packet = Packet::polarity(&events);
        change(&mut packet);
        with(&[sound.clone(), packet.bytes()].concat())
    };
    let png =
        [lines(&["#!AER-DAT3.1", "#Format: SerializedTS", "#!END-HEADER"]), sound.clone()].concat();
    let negative = changed(|packet| packet.body[7] |= 0x80);
    let less = [&events[..], &events[1..]].concat();
    let hostile = changed(|packet| (packet.capacity, packet.number) = (i32::MAX, i32::MAX));
    let below = changed(|packet| packet.number = -1);
    let beyond = changed(|packet| packet.number += 1);
    let wide = changed(|packet| packet.size = 12);
    let clock = changed(|packet| packet.overflow = -5);
    let text = [with(&sound), vec![b'x'; 40]].concat();
    vec![
        (
            "aedat3-cut.aedat",
            "ends inside a packet",
            with(&sound[..76]),
            events[..6].to_vec(),
            "ends after 76 of 124 bytes",
        ),
        (
            "aedat3-cut-header.aedat",
            "ends inside a packet's header",
            with(&[&sound[..], &sound[..9]].concat()),
            events.clone(),
            "ends after 9 of 28 bytes",
        ),
        ("aedat3-hostile.aedat", "a packet of 2^31 events", hostile, events.clone(), "allowed"),
        (
            "aedat3-negative.aedat",
            "a packet of -1 events",
            below,
            events.clone(),
            "no packet starts here",
        ),
        (
            "aedat3-beyond.aedat",
            "more events than room",
            beyond,
            events.clone(),
            "no packet starts here",
        ),
        (
            "aedat3-wide.aedat",
            "polarity events of 12 bytes",
            wide,
            events.clone(),
            "expected 8 and 4",
        ),
        (
            "aedat3-clock.aedat",
            "the clock ran over -5 times",
            clock,
            events.clone(),
            "clock ran over",
        ),
        ("aedat3-time.aedat", "a negative time", negative, less, ""),
        ("aedat3-text.aedat", "text after the packets", text, events, "more than the"),
        ("aedat3-format.aedat", "packets not stored RAW", png, vec![], "SerializedTS"),
    ]
}

fn aedat4() -> Vec<Row> {
    let events = events(12);
    let sound = super::aedat4(&events, Compression::None, true);
    let at = first_packet(&sound);
    let end = at + 8 + 32 + 16 * 12;
    let place = (end as u64).to_le_bytes();
    let place_at = sound.windows(8).position(|bytes| bytes == place).expect("the table's place");
    let changed = |at: usize, bytes: &[u8]| {
        let mut changed = sound.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let with_payload = |compression, payload: &[u8]| {
        let mut bytes = super::aedat4(&events, compression, false);
        bytes.truncate(at);
        bytes.extend([0_u32, payload.len() as u32].map(u32::to_le_bytes).concat());
        bytes.extend_from_slice(payload);
        bytes
    };
    let far = changed(place_at, &(end as u64 + 1000).to_le_bytes());
    let bomb = zstd::bulk::compress(&vec![0; 20 << 20], 3).expect("zeros");
    let negative = changed(at + 8 + 32, &(-5_i64).to_le_bytes());
    vec![
        (
            "aedat4-cut.aedat4",
            "ends inside a packet",
            sound[..at + 100].to_vec(),
            // those of 16 bytes each that came whole, after 8 bytes of header and 32 of offsets
            events[..3].to_vec(),
            "ends after 100 of",
        ),
        (
            "aedat4-cut-header.aedat4",
            "ends inside the header",
            sound[..at - 9].to_vec(),
            vec![],
            "ends after",
        ),
        (
            "aedat4-no-table.aedat4",
            "ends before its table",
            far[..end].to_vec(),
            events.clone(),
            "before its table",
        ),
        (
            "aedat4-header.aedat4",
            "a header of 2 GiB",
            changed(14, &[0xFF, 0xFF, 0xFF, 0x7F]),
            vec![],
            "header claims",
        ),
        (
            "aedat4-vtable.aedat4",
            "an offset to the header's vtable that cannot be negated",
            changed(18 + usize::from(sound[18]), &i32::MIN.to_le_bytes()),
            vec![],
            "vtable",
        ),
        (
            "aedat4-hostile.aedat4",
            "a packet of 2 GiB",
            changed(at + 4, &[0xFF, 0xFF, 0xFF, 0x7F]),
            vec![],
            "claims",
        ),
        (
            "aedat4-stream.aedat4",
            "a stream that is not declared",
            changed(at, &[9]),
            vec![],
            "names stream 9",
        ),
        (
            "aedat4-events.aedat4",
            "more events than the packet holds",
            changed(at + 8 + 28, &[200]),
            vec![],
            "is damaged",
        ),
        ("aedat4-time.aedat4", "a negative time", negative, events[1..].to_vec(), ""),
        (
            "aedat4-lz4.aedat4",
            "LZ4 that is none",
            with_payload(Compression::Lz4, b"not compressed"),
            vec![],
            "is damaged",
        ),
        (
            "aedat4-zstd.aedat4",
            "Zstandard that is none",
            with_payload(Compression::Zstd, b"not compressed"),
            vec![],
            "is damaged",
        ),
        (
            "aedat4-bomb.aedat4",
            "a packet of 20 MiB in few bytes",
            with_payload(Compression::Zstd, &bomb),
            vec![],
            "--max-packet",
        ),
    ]
}

fn nmnist() -> Vec<Row> {
    let events = events(12);
    let cut = short_events(&events)[..57].to_vec();
    vec![(
        "nmnist-cut.bin",
        "ends inside an event",
        cut,
        events[..11].to_vec(),
        "ends after 2 of 5 bytes",
    )]
}

fn npy_files() -> Vec<Row> {
    let events = events(12);
    let data = rows(&events, i64::to_le_bytes);
    let with = |descr: &str, shape: &str, data: &[u8]| npy(descr, false, shape, data);
    let sound = with("'<i8'", "(12, 4)", &data);
    let mut long = sound.clone();
    long.splice(6..10, [2, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    let moved: Vec<u8> = events
        .iter()
        .flat_map(|event| {
            let [t, x, y, p] = txyp(event);
            [x, y, p, t]
        })
        .flat_map(i64::to_le_bytes)
        .collect();
    let seconds: Vec<u8> = events
        .iter()
        .flat_map(|event| txyp(event).map(|n| n as f64))
        .enumerate()
        .flat_map(|(k, n)| (if k % 4 == 0 { n / 1e6 } else { n }).to_le_bytes())
        .collect();
    let mut nan = rows(&events, |n| (n as f64).to_le_bytes());
    nan[32..40].copy_from_slice(&f64::NAN.to_le_bytes());
    let without = [&events[..1], &events[2..]].concat();
    let mut edge = data.clone();
    edge[8..16].copy_from_slice(&(-3_i64).to_le_bytes());
    let mut outside = events.clone();
    outside[0].x = Event::OUTSIDE;
    let columns = npy("'<i8'", true, "(12, 4)", &data[..300]);
    vec![
        (
            "npy-cut.npy",
            "ends inside a row",
            sound[..128 + 100].to_vec(),
            events[..3].to_vec(),
            "after 3 of 12 rows",
        ),
        (
            "npy-header-cut.npy",
            "ends inside the header",
            sound[..50].to_vec(),
            vec![],
            "header ends after 50",
        ),
        (
            "npy-columns-cut.npy",
            "columns one after another that end early",
            columns,
            vec![],
            "no event is whole",
        ),
        ("npy-long-header.npy", "a header of 4 GiB", long, vec![], "more than the 65,536 allowed"),
        (
            "npy-hostile.npy",
            "2^62 rows",
            with("'<i8'", "(4611686018427387904, 4)", &data),
            vec![],
            "an array of",
        ),
        (
            "npy-more.npy",
            "bytes after the last row",
            with("'<i8'", "(11, 4)", &data),
            events[..11].to_vec(),
            "bytes follow",
        ),
        (
            "npy-order.npy",
            "columns x y p t",
            with("'<i8'", "(12, 4)", &moved),
            vec![],
            "must be t, x, y, p",
        ),
        (
            "npy-seconds.npy",
            "times in seconds",
            with("'<f8'", "(12, 4)", &seconds),
            vec![],
            "a whole number of µs",
        ),
        ("npy-nan.npy", "a time that is no number", with("'<f8'", "(12, 4)", &nan), without, ""),
        ("npy-edge.npy", "a column below 0", with("'<i8'", "(12, 4)", &edge), outside, ""),
        (
            "npy-objects.npy",
            "Python objects",
            with("'|O'", "(12, 4)", &data),
            vec![],
            "numbers of the type `|O`",
        ),
        (
            "npy-fields.npy",
            "fields without a polarity",
            with("[('t', '<i8'), ('x', '<i2'), ('y', '<i2')]", "(12,)", &data[..144]),
            vec![],
            "the array's fields are t, x, y",
        ),
        (
            "npy-shape.npy",
            "four rows of events",
            with("'<i8'", "(4, 12)", &data),
            vec![],
            "shape [4, 12]",
        ),
        (
            "npy-code.npy",
            "a header that is more than a literal",
            with("__import__('os')", "(12, 4)", &data),
            vec![],
            "where a value belongs",
        ),
    ]
}

fn csv() -> Vec<Row> {
    let events = events(12);
    let line = |event: &Event| {
        let [t, x, y, p] = txyp(event);
        format!("{t},{x},{y},{p}\n")
    };
    let lines: Vec<String> = events.iter().map(line).collect();
    let with = |fifth: &str| {
        let lines = [&lines[..4], &[format!("{fifth}\n")], &lines[5..]].concat();
        format!("t,x,y,p\n{}", lines.concat()).into_bytes()
    };
    let seconds = "0.001244,3,4,1\n".repeat(3).into_bytes();
    let names = format!("t,x,y\n{}", lines.concat()).into_bytes();
    let order: String = events
        .iter()
        .map(|event| {
            let [t, x, y, p] = txyp(event);
            format!("{x},{y},{p},{t}\n")
        })
        .collect();
    let last = "x,y,p,t\n3,4,1,100\n3,4,1,20".to_owned().into_bytes();
    let first = Event { t_us: 100, x: 3, y: 4, polarity: Polarity::On };
    let four = events[..4].to_vec();
    let without = [&events[..4], &events[5..]].concat();
    vec![
        (
            "csv-columns.csv",
            "a line of three columns",
            with("1,2,3"),
            four.clone(),
            "line 6 holds 3 columns",
        ),
        ("csv-text.csv", "a word for a number", with("1,2,many,0"), four.clone(), "row `many`"),
        ("csv-negative.csv", "a negative time", with("-5,2,3,0"), without.clone(), ""),
        ("csv-far.csv", "a time of 65 bits", with("18446744073709551616,2,3,0"), without, ""),
        (
            "csv-wide.csv",
            "a column beyond 16 bits",
            with("5,70000,3,0"),
            four.clone(),
            "column `70000`",
        ),
        ("csv-long.csv", "a line of 300 bytes", with(&"9".repeat(300)), four, "longer than 256"),
        ("csv-seconds.csv", "times in seconds", seconds, vec![], "a whole number of µs"),
        ("csv-names.csv", "no column for the polarity", names, vec![], "names the columns `t,x,y`"),
        (
            "csv-order.csv",
            "no names and the time last",
            order.into_bytes(),
            vec![],
            "polarity `1244`",
        ),
        ("csv-cut.csv", "ends inside a number", last, vec![first], "ends without a line end"),
    ]
}
