//! Chapter 01: the canonical scan.

use serde_json::json;

use crate::vector::File;

const BODY: &str = "AccountLinkBody";
const RECORD: &str = "DeviceRecord";
const REPORT: &str = "UndecryptableReport";
const SERVER: &str = "ServerLinkBody";

pub(crate) fn canonical() -> File {
    let question = "Does the canonical scan take these bytes as a body of this message?";
    let mut file = File::new("01-conventions", "canonical", question);
    for (message, bytes, comment) in [
        (BODY, "", "the empty body"),
        (BODY, "0802", "one number"),
        (BODY, "08ffffffff0f", "the largest uint32"),
        (BODY, "20ffffffffffffffffff01", "the largest uint64"),
        (BODY, "080212016120012a01622a0163", "a repeated field twice, in a row"),
        (BODY, "920100", "an empty message has presence of its own"),
        (BODY, "9201030a0161", "a message in a message"),
        (BODY, "aa01070a016118032200", "messages two deep"),
        (BODY, "c00105", "an unknown field behind the known ones"),
        (BODY, "c00105c00106", "an unknown field twice"),
        (BODY, "c2010105c9010100000000000000", "unknown fields of other wire types"),
        (BODY, "c00100", "an unknown field with the number 0 written out: it is not known to be a default"),
        (RECORD, "0a016112016218032203000221", "numbers packed into one field"),
        (REPORT, "22060a0161120162", "a report with a lane"),
        (SERVER, "08029201030a0161", "a server link"),
    ] {
        file.valid(&["FRM-020"], comment, json!({"message": message, "bytes": bytes}), json!(true));
    }
    for (message, bytes, step, comment) in [
        (BODY, "08", 5, "the bytes end behind a tag"),
        (BODY, "0880", 5, "the bytes end inside a number"),
        (BODY, "12056162", 5, "a length reaches beyond the bytes"),
        (BODY, "12ffffffffffffffffff01", 5, "the longest length"),
        (BODY, "080200", 3, "a zero byte behind the last field: a tag of field number 0"),
        (BODY, "880002", 2, "a tag that is not minimal, a last byte of zero bits"),
        (BODY, "088200", 5, "a number that is not minimal"),
        (BODY, "2080808080808080808000", 5, "0 in ten bytes"),
        (BODY, "20ffffffffffffffffff02", 5, "a number beyond 64 bits"),
        (BODY, "20ffffffffffffffffffff01", 5, "a number of eleven bytes"),
        (BODY, "12810061", 5, "a length that is not minimal"),
        (BODY, "0001", 3, "field number 0"),
        (BODY, "808080801001", 3, "field number 2^29"),
        (BODY, "0b0c", 4, "a group"),
        (BODY, "c301c401", 4, "a group in an unknown field"),
        (BODY, "0e01", 4, "wire type 6"),
        (BODY, "0f01", 4, "wire type 7"),
        (BODY, "1201610802", 6, "fields out of order"),
        (BODY, "c001050802", 6, "a known field behind an unknown one with a higher number"),
        (BODY, "2a016120012a0162", 6, "a repeated field with another between"),
        (BODY, "08020802", 8, "a singular field twice"),
        (BODY, "920100920100", 8, "a singular message twice"),
        (RECORD, "220100220102", 8, "numbers packed into two fields"),
        (BODY, "0a0102", 9, "a number as bytes"),
        (BODY, "1001", 9, "bytes as a number"),
        (BODY, "0d01000000", 9, "a number as fixed32"),
        (BODY, "900101", 9, "a message as a number"),
        (RECORD, "2002", 9, "a repeated number that is not packed"),
        (BODY, "088080808010", 10, "2^32 in a uint32"),
        (BODY, "a201040a02c328", 11, "text that is not UTF-8"),
        (BODY, "a201050a03eda080", 11, "text with a surrogate"),
        (BODY, "a201040a02c080", 11, "text with an overlong zero"),
        (BODY, "9201020a05", 12, "the bytes end inside a message in a message"),
        (BODY, "9201020a00", 13, "a default in a message in a message"),
        (BODY, "0800", 13, "type 0 written out"),
        (BODY, "1200", 13, "empty bytes written out"),
        (BODY, "2000", 13, "number 0 written out"),
        (BODY, "a201020a00", 13, "empty text written out"),
        (RECORD, "2200", 14, "a packed field without numbers"),
        (RECORD, "22028000", 14, "a packed number that is not minimal"),
        (RECORD, "220180", 14, "a packed field that ends inside a number"),
    ] {
        let inputs = json!({"message": message, "bytes": bytes});
        file.invalid(&["FRM-020", "FRM-021"], comment, "", inputs).steps(json!({"stops_at_step": step}));
    }
    file
}
