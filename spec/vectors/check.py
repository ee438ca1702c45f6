#!/usr/bin/env python3
"""Checks the vectors with a second implementation, written from the text: Python's standard library and nothing else.

    python3 spec/vectors/check.py [name ...]

It has no opinion where only IDNA can tell, on chains that are too long to be written out, and on the state machines of a
handshake. It needs Python 3.11.
"""

import hashlib
import json
import pathlib
import struct
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
UNKNOWN = object()  # This program has no opinion.


class Invalid(Exception):
    """With the code of the refusal; empty where the text has none."""


def sha256(data):
    return hashlib.sha256(data).digest()


# ---- 01-conventions: varints and frames -----------------------------------------------------------------------------


def varint(data):
    """The number and the bytes it took; None if bytes are missing."""
    if not data or len(data) < 1 << (data[0] >> 6):
        return None
    used = 1 << (data[0] >> 6)
    value = int.from_bytes(data[:used], "big") & ((1 << (8 * used - 2)) - 1)
    least = next(n for n in (1, 2, 4, 8) if value < 1 << (8 * n - 2))
    if used != least:
        raise Invalid("frame-malformed")
    return value, used


def check_varint(inputs):
    read = varint(bytes.fromhex(inputs["bytes"]))
    if read is None:
        raise Invalid("frame-malformed")
    return {"value": str(read[0]), "used": read[1]}


def frames(data, limit):
    while data:
        kind = varint(data)
        if kind is None:
            raise Invalid("frame-malformed")
        length = varint(data[kind[1]:])
        if length is None:
            raise Invalid("frame-malformed")
        if length[0] > limit:
            raise Invalid("frame-too-large")
        start = kind[1] + length[1]
        if len(data) < start + length[0]:
            raise Invalid("frame-malformed")
        yield kind[0], data[start:start + length[0]]
        data = data[start + length[0]:]


def check_frame(inputs):
    limit = 65536 if inputs["stream"] == "control" else 262144
    found = frames(bytes.fromhex(inputs["bytes"]), limit)
    return [{"type": str(kind), "payload": payload.hex()} for kind, payload in found]


def check_messages(inputs):
    (kind, payload), = frames(bytes.fromhex(inputs["bytes"]), 262144)
    try:
        list(fields(payload, False))
    except Invalid:
        raise Invalid("message-malformed") from None
    return {"type": str(kind), "payload_bytes": len(payload), "frame": UNKNOWN}


# ---- protobuf, and the canonical scan -------------------------------------------------------------------------------


def pb_varint(data, at, minimal=True):
    value = shift = 0
    while True:
        if at >= len(data) or shift >= 70:
            raise Invalid("")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if not byte & 0x80:
            if value >= 1 << 64 or (minimal and byte == 0 and shift > 0):
                raise Invalid("")
            return value, at
        shift += 7


def fields(data, minimal=True):
    """Number, wire type and value of each field."""
    at = 0
    while at < len(data):
        tag, at = pb_varint(data, at, minimal)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29 or wire not in (0, 1, 2, 5):
            raise Invalid("")
        if wire == 0:
            value, at = pb_varint(data, at, minimal)
        else:
            length = {1: 8, 5: 4}.get(wire)
            if length is None:
                length, at = pb_varint(data, at, minimal)
            if at + length > len(data):
                raise Invalid("")
            value, at = data[at:at + length], at + length
        yield number, wire, value


BYTES, TEXT, U32, U64, PACKED = "bytes", "text", "u32", "u64", "packed"


def many(kind):
    return ("many", kind)


DEVICE = {1: BYTES, 2: BYTES, 3: U32}
ONE = {1: BYTES}
WORD = {1: TEXT}
LINK = {1: U32, 2: BYTES, 3: BYTES, 4: U64, 5: many(BYTES)}
ACCOUNT = {
    **LINK,
    16: {1: BYTES, 2: TEXT, 3: DEVICE, 4: BYTES},
    17: DEVICE, 18: ONE, 19: ONE, 20: WORD,
    21: {1: BYTES, 2: TEXT, 3: U32, 4: many({1: BYTES, 2: DEVICE})},
    22: ONE, 23: WORD,
}
SERVER = {**LINK, 16: {1: TEXT, 2: BYTES, 3: BYTES, 4: BYTES}, 17: ONE, 18: ONE, 19: ONE}
SHAPES = {
    "AccountLinkBody": ACCOUNT,
    "ServerLinkBody": SERVER,
    "DeviceRecord": {1: BYTES, 2: BYTES, 3: U64, 4: PACKED},
    "UndecryptableReport": {1: BYTES, 2: BYTES, 3: BYTES, 4: {1: BYTES, 2: BYTES, 3: U64, 4: BYTES}, 5: U64, 6: BYTES},
}


def scan(data, shape):
    """The canonical scan of 1.4."""
    last = 0
    for number, wire, value in fields(data):
        if number < last:
            raise Invalid("")
        kind = shape.get(number)
        repeated = isinstance(kind, tuple)
        if kind is not None:
            if number == last and not repeated:
                raise Invalid("")
            scan_value(wire, value, kind[1] if repeated else kind, repeated)
        last = number


def scan_value(wire, value, kind, repeated):
    if wire != (0 if kind in (U32, U64) else 2):
        raise Invalid("")
    if isinstance(kind, dict):
        scan(value, kind)
        return
    if kind == U32 and value >= 1 << 32:
        raise Invalid("")
    if kind == TEXT:
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            raise Invalid("") from None
    if kind == PACKED:
        at = 0
        while at < len(value):
            _, at = pb_varint(value, at)
    if not repeated and not value:
        raise Invalid("")


def check_canonical(inputs):
    scan(bytes.fromhex(inputs["bytes"]), SHAPES[inputs["message"]])
    return True


# ---- labels and signatures ------------------------------------------------------------------------------------------


def label(purpose, data):
    return b"tidings/1\0" + purpose.encode() + b"\0" + data


def check_labelled(inputs):
    if sha256(label(inputs["purpose"], bytes.fromhex(inputs["bytes"]))).hex() != inputs["sha256"]:
        raise Invalid("")
    return True


P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def point(data):
    """A point from its canonical encoding; None if it is not one."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def add(a, b):
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, i, j, k = f - e, h - g, h + g, f + e
    return (e * i % P, j * k % P, i * j % P, e * k % P)


def times(n, a):
    out = (0, 1, 1, 0)
    while n:
        if n & 1:
            out = add(out, a)
        a, n = add(a, a), n >> 1
    return out


def same(a, b):
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


NEUTRAL = (0, 1, 1, 0)
BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def good_key(key):
    a = point(key[1:]) if len(key) == 33 and key[0] == 1 else None
    return a is not None and not same(times(8, a), NEUTRAL)


def verifies(key, purpose, data, signature):
    """The steps of 1.5."""
    if len(signature) != 65 or signature[0] != 1 or not good_key(key):
        return False
    a, r = point(key[1:]), point(signature[1:33])
    if r is None or same(times(8, r), NEUTRAL):
        return False
    s = int.from_bytes(signature[33:], "little")
    if s >= L:
        return False
    hashed = hashlib.sha512(signature[1:33] + key[1:] + label(purpose, data)).digest()
    k = int.from_bytes(hashed, "little") % L
    return same(times(s, BASE), add(r, times(k, a)))


def check_ed25519(inputs):
    key, data, signature = (bytes.fromhex(inputs[name]) for name in ("key", "bytes", "signature"))
    if not verifies(key, inputs["purpose"], data, signature):
        raise Invalid("")
    return {"key_id": sha256(key).hex()}


# ---- names: the grammar without IDNA --------------------------------------------------------------------------------

LOWER = set("abcdefghijklmnopqrstuvwxyz0123456789")


def user(text):
    return 1 <= len(text) <= 63 and text[0] in LOWER and set(text) <= LOWER | set("._-")


def domain(text):
    """True, False, or UNKNOWN where only IDNA can tell."""
    labels = text.split(".")
    if len(text) > 253 or not set(text) <= LOWER | set("-."):
        return False
    if any(not 1 <= len(each) <= 63 or each[0] == "-" or each[-1] == "-" for each in labels):
        return False
    last = labels[-1]
    if last.isdigit() or (last.startswith("0x") and set(last[2:]) <= set("0123456789abcdef")):
        return False
    if any(each[2:4] == "--" and not each.startswith("xn--") for each in labels):
        return False
    return UNKNOWN if any(each.startswith("xn--") for each in labels) else True


def check_name(inputs):
    text = inputs["text"]
    if inputs["kind"] == "user":
        fits = user(text)
    elif inputs["kind"] == "domain":
        fits = domain(text)
    else:
        name, at, rest = text.partition("@")
        fits = domain(rest) if at and user(name) and "@" not in rest else False
    if not fits:
        raise Invalid("message-malformed")
    return fits


# ---- 02-session: proofs ---------------------------------------------------------------------------------------------


def check_proof(inputs):
    who, binding, proof = inputs["identity"], inputs["binding"], inputs["proof"]

    def lp(data):
        return struct.pack(">H", len(data)) + data

    identity = {
        "device": lambda: bytes.fromhex(who["account"] + who["device"]),
        "candidate": lambda: bytes.fromhex(who["key"]),
        "peer": lambda: who["domain"].encode() + bytes.fromhex(who["server_genesis"]),
    }[who["kind"]]()
    welcome = inputs["welcome_payload"]
    transcript = bytes([1 if inputs["role"] == "opener" else 2])
    transcript += lp(inputs["alpn"].encode()) + lp(inputs["domain"].encode()) + lp(identity)
    transcript += bytes.fromhex(inputs["server_genesis"]) + sha256(bytes.fromhex(inputs["hello_payload"]))
    transcript += bytes(32) if welcome is None else sha256(bytes.fromhex(welcome))
    exporter = "exporter" in binding
    transcript += bytes.fromhex(binding["exporter"] if exporter else binding["opener_nonce"] + binding["acceptor_nonce"])
    key = bytes.fromhex(inputs["key"])
    fits = proof["kind"] == (1 if exporter else 2) and proof["key_id"] == sha256(key).hex()
    purpose = "auth-exporter" if exporter else "auth-nonce"
    if not fits or not verifies(key, purpose, transcript, bytes.fromhex(proof["signature"])):
        raise Invalid("auth-failed")
    return True


# ---- 03-logs --------------------------------------------------------------------------------------------------------


def position(value):
    incarnation, hashed, n = bytes.fromhex(value["incarnation"]), bytes.fromhex(value["hash"]), int(value["n"])
    if len(incarnation) != 16 or len(hashed) != 32 or (n == 0 and any(hashed)):
        raise Invalid("message-malformed")
    return incarnation, n, hashed


def message(data):
    """The last value of each field; None if the bytes are no message."""
    try:
        return {number: value for number, _, value in fields(data, False)}
    except Invalid:
        return None


def check_log(inputs):
    incarnation, n, hashed = position(inputs["position"])
    for shipped in inputs["entries"]:
        number, entry = int(shipped["n"]), bytes.fromhex(shipped["entry"])
        if number != n + 1:
            raise Invalid("position-invalid")
        parsed = message(entry)
        if parsed is not None and parsed.get(1, 0) == 0x0A:
            void = message(parsed.get(2, b""))
            if void is None or len(void.get(4, b"")) != 32 or void.get(1, 0) != number or void.get(2, 0) < number:
                raise Invalid("position-invalid")
            n, hashed = void[2], void[4]
        else:
            n, hashed = number, sha256(b"tidings/1 log\0" + hashed + sha256(entry))
    return {"incarnation": incarnation.hex(), "n": str(n), "hash": hashed.hex()}


def check_compare(inputs):
    end, other = position(inputs["end"]), position(inputs["position"])
    if end[0] != other[0]:
        return {"agreement": "other-incarnation"}
    if other[1] > end[1] or (other[1] == end[1] and other[2] != end[2]):
        raise Invalid("position-invalid")
    return {"agreement": "same" if other == end else "behind"}


# ---- 06-messages ----------------------------------------------------------------------------------------------------


def mark(value):
    upto, but = int(value["upto"]), [int(each) for each in value["except"]]
    if len(but) > 16:
        raise Invalid("limit-exceeded")
    if but != sorted(set(but)) or any(not 1 <= each <= upto for each in but):
        raise Invalid("message-malformed")
    return upto, set(but)


def check_watermark(inputs):
    (a, but_a), (b, but_b) = mark(inputs["a"]), mark(inputs["b"])
    unread = [n for n in sorted(but_a | but_b) if not (n <= a and n not in but_a) and not (n <= b and n not in but_b)]
    return {"upto": str(max(a, b)), "except": [str(n) for n in unread]}


# ---- 04-chains ------------------------------------------------------------------------------------------------------


class Link:
    """An opened link (4.2): its id, and its fields by name."""

    def __init__(self, link, shape, purpose):
        body = bytes.fromhex(link["body"])
        if len(body) > 4096:
            raise Invalid("link-invalid")
        try:
            scan(body, shape)
        except Invalid:
            raise Invalid("link-invalid") from None
        values = {}
        for number, _, value in fields(body):
            values.setdefault(number, []).append(value)
        self.id = sha256(label(purpose, body))
        self.type, self.number = values.get(1, [0])[0], values.get(4, [0])[0]
        self.chain, self.previous = values.get(2, [b""])[0], values.get(3, [b""])[0]
        self.signers = values.get(5, [])
        known = [number for number in values if number >= 16 and number in shape]
        self.field = known[0] if len(known) == 1 else None
        self.content = message(values[self.field][0]) if self.field else None
        self.repeated = list(fields(values[self.field][0])) if self.field else []
        self.bytes, self.purpose = body, purpose
        self.signatures = [bytes.fromhex(each) for each in link["signatures"]]
        ids = [each for each in (self.chain, self.previous) if each] + self.signers
        if any(len(each) != 32 for each in ids):
            raise Invalid("link-invalid")

    def check_signatures(self, keys):
        good = [sha256(key) for key in keys] == self.signers and len(self.signatures) == len(keys)
        need(good and all(verifies(key, self.purpose, self.bytes, each) for key, each in zip(keys, self.signatures)))

    def take(self, number, length):
        """A bytes field of the type's message, of its stated length."""
        value = self.content.get(number, b"")
        need(len(value) == length)
        return value


def need(condition, code="link-invalid"):
    if not condition:
        raise Invalid(code)


def text_of(value, check):
    text = value.decode("utf-8")
    need(check(text))
    return text


def is_address(text):
    name, at, rest = text.partition("@")
    return at and "@" not in rest and user(name) and domain(rest)


class Chain:
    """What server and account chains have in common: the steps of 4.2."""

    def __init__(self, links):
        need(links)
        for link in links:
            self.append(Link(link, self.SHAPE, self.PURPOSE))

    head = None
    length = 0

    def append(self, link):
        if self.head is None:
            need(not link.chain and not link.previous and link.type == 0 and link.number == 0 and link.field == 16)
            keys = self.begin(link)
            link.check_signatures(keys)
            self.genesis = link.id
        else:
            need(link.chain == self.genesis)
            need(link.number == self.length and link.previous == self.head, "stale-link")
            need(link.type % 2 or link.type <= self.LAST)
            self.before(link)
            if link.type % 2:
                keys = [self.listed().get(signer) for signer in link.signers]
                need(keys and None not in keys)
                change = self.place(link)
            else:
                change = self.place(link)
                need(link.field == 16 + link.type // 2 and link.type > 0)
                keys, effect = self.rules(link)
            link.check_signatures(keys)
            change()
            if not link.type % 2:
                effect()
        self.head, self.length = link.id, self.length + 1

    def before(self, link):
        pass


class Server(Chain):
    SHAPE, PURPOSE, LAST = SERVER, "server-link", 6

    def begin(self, link):
        self.domain = text_of(link.content.get(1, b""), domain)
        self.root, online = link.content.get(2, b""), link.content.get(3, b"")
        incarnation = link.take(4, 16)
        need(good_key(self.root) and good_key(online) and self.root != online and any(incarnation))
        self.online, self.retired, self.incarnations = [online], [], [incarnation]
        return [self.root, online]

    def listed(self):
        return {sha256(key): key for key in [self.root, *self.online]}

    def place(self, _):
        need(self.length < 256, "link-limit")
        return lambda: None

    def rules(self, link):
        if link.type == 2:
            key = link.content.get(1, b"")
            need(good_key(key) and key != self.root and key not in self.online and key not in self.retired)
            return [self.root, key], lambda: self.online.append(key)
        if link.type == 4:
            named = [key for key in self.online if sha256(key) == link.take(1, 32)]
            need(named)
            return [self.root], lambda: (self.online.remove(named[0]), self.retired.append(named[0]))
        incarnation = link.take(1, 16)
        need(any(incarnation) and incarnation not in self.incarnations)
        need(len(link.signers) == 1 and link.signers[0] in self.listed())
        return [self.listed()[link.signers[0]]], lambda: self.incarnations.append(incarnation)

    def output(self):
        return {
            "head": self.head.hex(),
            "links": self.length,
            "domain": self.domain,
            "root_key": self.root.hex(),
            "online_keys": [key.hex() for key in self.online],
            "incarnations": [each.hex() for each in self.incarnations],
        }


class Account(Chain):
    SHAPE, PURPOSE, LAST = ACCOUNT, "account-link", 14

    def device(self, content):
        key, identity, registration = content.get(1, b""), content.get(2, b""), content.get(3, 0)
        need(good_key(key) and len(identity) == 33 and identity[0] == 5 and 1 <= registration <= 16380)
        return key, identity, registration

    def begin(self, link):
        self.recovery = link.content.get(1, b"")
        self.address = text_of(link.content.get(2, b""), is_address)
        need(3 in link.content and good_key(self.recovery))
        first = self.device(message(link.content[3]))
        need(first[0] != self.recovery)
        link.take(4, 16)
        self.address_links, self.ended, self.taken, self.closed = 1, [], 0, False
        self.devices = {link.id: first}
        return [self.recovery, first[0]]

    def listed(self):
        return {sha256(key): key for key in [self.recovery, *(each[0] for each in self.devices.values())]}

    def before(self, link):
        need(not self.closed, "account-closed")

    def place(self, link):
        need(link.signers and link.signers[0] in self.listed())
        most = 1024 if link.signers[0] == sha256(self.recovery) else 1024 - 16
        need(link.type == 10 or self.taken < most, "link-limit")
        return lambda: setattr(self, "taken", self.taken + 1)

    def rules(self, link):
        first = self.listed()[link.signers[0]]
        if link.type == 2:
            new = self.device(link.content)
            need(new[0] != self.recovery and len(self.devices) < 32)
            need(all(new[0] != each[0] and new[1] != each[1] for each in self.devices.values()))
            return [first, new[0]], lambda: self.devices.update({link.id: new})
        if link.type == 4:
            device = link.take(1, 32)
            need(device in self.devices)
            return [first], lambda: self.devices.pop(device)
        need(first == self.recovery)
        if link.type == 6:
            key = link.content.get(1, b"")
            need(good_key(key) and sha256(key) not in self.listed())
            return [first, key], lambda: setattr(self, "recovery", key)
        return [first], getattr(self, {8: "move", 10: "restate", 12: "end", 14: "close"}[link.type])(link)

    def move(self, link):
        address = text_of(link.content.get(1, b""), is_address)
        return lambda: self.__dict__.update(address=address, address_links=self.address_links + 1)

    def restate(self, link):
        stated = [message(value) for number, _, value in link.repeated if number == 4]
        devices = [(each.get(1), message(each.get(2, b""))) for each in stated]
        held = [(name, dict(zip((1, 2, 3), self.devices[name]))) for name in sorted(self.devices)]
        need(devices == held and link.content.get(1) == self.recovery)
        need(link.content.get(2, b"").decode() == self.address and link.content.get(3, 0) == self.address_links)
        return lambda: setattr(self, "taken", 0)

    def end(self, link):
        other = link.take(1, 32)
        need(other not in (link.previous, self.genesis))
        return lambda: self.ended.append(other)

    def close(self, _):
        return lambda: setattr(self, "closed", True)

    def output(self):
        return {
            "head": self.head.hex(),
            "links": self.length,
            "recovery_key": self.recovery.hex(),
            "address": self.address,
            "address_links": self.address_links,
            "devices": [{"id": name.hex(), "key": self.devices[name][0].hex()} for name in sorted(self.devices)],
            "ended_heads": [each.hex() for each in self.ended],
            "places_taken": self.taken,
            "closed": self.closed,
        }


def check_account(inputs):
    return Account(inputs["links"]).output() if "links" in inputs else UNKNOWN


def check_server(inputs):
    return Server(inputs["links"]).output() if "links" in inputs else UNKNOWN


def ids(links, purpose):
    return [sha256(label(purpose, bytes.fromhex(link["body"]))) for link in links]


def check_fork(inputs):
    """The steps of 4.6."""
    held = Account(inputs["held"])
    try:
        came = Account(inputs["came"])
    except Invalid:
        raise Invalid("") from None
    a, b = (ids(inputs[name], "account-link") for name in ("held", "came"))
    if set(b) <= set(a):
        return {"settled": "keep"}
    if set(a) <= set(b):
        return {"settled": "take"}
    a_ends, b_ends = (any(each in set(y) - set(x) for each in chain.ended) for chain, x, y in ((held, a, b), (came, b, a)))
    return {"settled": "open" if a_ends == b_ends else "keep" if a_ends else "take"}


# ---- what the registry says -----------------------------------------------------------------------------------------


def registry(name):
    with open(HERE.parent / "registry" / f"{name}.toml", "rb") as file:
        return list(tomllib.load(file).values())[0]


def check_placement(inputs):
    kind, on = inputs["type"], inputs["stream"]
    known = next((each for each in registry("frames") if each["code"] == kind), None)
    if known is None:
        if kind % 2 == 0:
            raise Invalid("frame-unknown")
        return {"frame": None}
    pipelines = ("local", "remote", "submit")
    where = known["stream"]
    sent = known["sender"] in ("both", inputs["from"])
    if sent and (where in ("any", on) or (where == "pipeline" and on in pipelines)):
        return {"frame": known["name"]}
    raise Invalid("wrong-pipeline" if sent and where in pipelines and on in pipelines else "frame-unexpected")


def check_failure(inputs):
    payload = bytes.fromhex(inputs["payload"])
    try:
        found = {number: value for number, _, value in fields(payload, False)}
        found.get(5, b"").decode("utf-8")
    except (Invalid, UnicodeDecodeError):
        raise Invalid("message-malformed") from None
    code = found.get(1, 0)
    known = next((each for each in registry("errors") if each["code"] == code), None)
    scope = {1: "request", 2: "stream", 3: "connection"}.get(found.get(2), "request")
    retry = {1: "never", 2: "after-repair", 3: "after-delay", 4: "elsewhere"}.get(found.get(3), "never")
    if known is not None:
        scope, retry = known["scope"], known["retry"]
    if inputs["place"] == "control":
        scope = "connection"
    name = known and known["name"]
    return {"code": code, "name": name, "scope": scope, "retry": retry, "retry_after_ms": found.get(4, 0)}


# ---- running them ---------------------------------------------------------------------------------------------------

CHECKS = {
    "varint": check_varint,
    "frame": check_frame,
    "labelled": check_labelled,
    "canonical": check_canonical,
    "ed25519": check_ed25519,
    "name": check_name,
    "messages": check_messages,
    "proof": check_proof,
    "log": check_log,
    "compare": check_compare,
    "watermark": check_watermark,
    "account": check_account,
    "server": check_server,
    "fork": check_fork,
    "placement": check_placement,
    "failure": check_failure,
}


def fits(wanted, got):
    if got is UNKNOWN:
        return True
    if isinstance(wanted, dict) and isinstance(got, dict):
        return all(fits(wanted.get(key), value) for key, value in got.items())
    return wanted == got


def judge(name, vector):
    """'agreed', 'no opinion' or what is wrong."""
    try:
        got = CHECKS[name](vector["inputs"])
    except Invalid as refusal:
        code = str(refusal)
        if vector["result"] == "invalid" and (vector["expect"] or "") == code:
            return "agreed"
        return f"refused with '{code}'"
    if vector["result"] == "valid":
        return "agreed" if fits(vector["output"], got) else f"gives {got}"
    return "no opinion" if got is UNKNOWN else "is taken"


def main(names):
    wrong = 0
    for path in sorted(HERE.glob("*/*.json")):
        file = json.loads(path.read_text(encoding="utf-8"))
        name = file["name"]
        if names and name not in names:
            continue
        if name not in CHECKS:
            print(f"{name}: not covered")
            continue
        tally = {"agreed": 0, "no opinion": 0}
        for vector in file["vectors"]:
            verdict = judge(name, vector)
            if verdict in tally:
                tally[verdict] += 1
            else:
                wrong += 1
                print(f"{vector['id']} ({vector['comment']}): {vector['result']}, but {verdict}")
        print(f"{name}: " + ", ".join(f"{count} {word}" for word, count in tally.items() if count))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
