"""The library from Python, by ctypes: sensor.py LIBRARY HOST:PORT DEVICE"""

import ctypes
import sys


class Value(ctypes.Union):
    _fields_ = [
        ("string", ctypes.c_char_p),
        ("integer", ctypes.c_int64),
        ("number", ctypes.c_double),
        ("boolean", ctypes.c_int),
    ]


class Attribute(ctypes.Structure):
    _fields_ = [
        ("key", ctypes.c_char_p),
        ("type", ctypes.c_uint32),
        ("length", ctypes.c_size_t),
        ("value", Value),
    ]


INFO, WARN = 9, 13
NUMBER = 3
NUL_TERMINATED = ctypes.c_size_t(-1)


def load(path):
    library = ctypes.CDLL(path)
    library.thinglog_version.restype = ctypes.c_char_p
    library.thinglog_options_new.restype = ctypes.c_void_p
    library.thinglog_options_set.argtypes = [ctypes.c_void_p] + [ctypes.c_char_p] * 3 + [ctypes.c_size_t]
    library.thinglog_options_free.argtypes = [ctypes.c_void_p]
    library.thinglog_start.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.thinglog_start.restype = ctypes.c_void_p
    event = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    text = [ctypes.c_char_p, ctypes.c_size_t]
    library.thinglog_emit.argtypes = event + text
    attributes = [ctypes.POINTER(Attribute), ctypes.c_size_t]
    library.thinglog_emit_kv.argtypes = event + [ctypes.c_uint64] + text + attributes
    library.thinglog_close.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.thinglog_free.argtypes = [ctypes.c_void_p]
    return library


def main(path, broker, device):
    library = load(path)
    error = ctypes.create_string_buffer(256)
    options = library.thinglog_options_new(device.encode())
    if library.thinglog_options_set(options, b"broker", broker.encode(), error, len(error)) != 0:
        sys.exit(error.value.decode())
    log = library.thinglog_start(options, error, len(error))
    library.thinglog_options_free(options)
    if not log:
        sys.exit(error.value.decode())
    version = library.thinglog_version().decode()
    text = f"python begins, thinglog {version}, grüßt".encode()
    library.thinglog_emit(log, b"sensor", INFO, text, len(text))
    hot = Attribute(b"celsius", NUMBER, 0, Value(number=91.5))
    library.thinglog_emit_kv(
        log, b"sensor", WARN, 0, b"it is too hot", NUL_TERMINATED, ctypes.byref(hot), 1
    )
    durable = library.thinglog_close(log, 10000)
    library.thinglog_free(log)
    sys.exit(0 if durable == 1 else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
