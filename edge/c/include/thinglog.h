/*
 * thinglog: the embedded log publisher.
 *
 *     char error[256];
 *     thinglog_options *options = thinglog_options_new("lamp-7");
 *     thinglog_options_set(options, "broker", "192.0.2.1:1883", error, sizeof error);
 *     thinglog_publisher *log = thinglog_start(options, error, sizeof error);
 *     thinglog_options_free(options);
 *
 *     thinglog_printf(log, "app", THINGLOG_WARN, "bulb is at %d degrees", 91);
 *
 *     thinglog_close(log, 5000);
 *     thinglog_free(log);
 *
 * edge/c/install puts it where compilers look; then `cc lamp.c $(pkg-config --cflags --libs thinglog)`.
 * Without that, link with -lthinglog, or with libthinglog.a -lpthread -ldl -lm.
 *
 * Every function may be called from any thread, but thinglog_free, which must be the last, and the
 * functions of one thinglog_options, which is for one thread at a time. None may be called from a
 * signal handler. A publisher has a thread of its own, which a fork() does not copy: start it in the
 * process that logs. The library is not made to be unloaded (dlclose) again.
 *
 * Whatever pointer is documented as a string is UTF-8 and ends with NUL. Where bytes are not UTF-8,
 * U+FFFD takes their place and the event gets the attribute "thinglog.invalid_utf8". NULL is
 * answered with THINGLOG_ERROR_ARGUMENT, never with a crash.
 */
#ifndef THINGLOG_H
#define THINGLOG_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header; thinglog_version() is that of the library. */
#define THINGLOG_VERSION "0.1.0"

/* Severities are OpenTelemetry's numbers, 1 to 24; any other counts as THINGLOG_INFO. */
#define THINGLOG_TRACE 1
#define THINGLOG_DEBUG 5
#define THINGLOG_INFO 9
#define THINGLOG_NOTICE 10
#define THINGLOG_WARN 13
#define THINGLOG_ERROR 17
#define THINGLOG_CRITICAL 18
#define THINGLOG_ALERT 19
#define THINGLOG_FATAL 21

/* The severity of a priority of syslog(3), LOG_EMERG (0) to LOG_DEBUG (7). */
#define THINGLOG_SYSLOG(priority) ((int)"\25\23\22\21\15\12\11\5"[(priority) & 7])

/* A length that says: up to the NUL. */
#define THINGLOG_NUL_TERMINATED ((size_t)-1)

/* What the functions that return an int return, unless they say otherwise. */
#define THINGLOG_OK 0
#define THINGLOG_ERROR_ARGUMENT (-1) /* NULL, an unknown key, a value that cannot be read */
#define THINGLOG_ERROR_INTERNAL (-2) /* a fault of the library's own; nothing was done */

/* Opaque. */
typedef struct thinglog_options thinglog_options;
typedef struct thinglog_publisher thinglog_publisher;

/* The version, such as "0.1.0". */
const char *thinglog_version(void);

/* What a THINGLOG_ERROR_... means. Never NULL. */
const char *thinglog_strerror(int status);

/*
 * Options for `device`: any name; what cannot stand in a topic is percent-encoded. NULL without a
 * name or without memory.
 */
thinglog_options *thinglog_options_new(const char *device);

/*
 * Sets one option. When it cannot, the reason goes to `error` (cut to `error_size` bytes, always
 * ended by NUL; may be NULL) and nothing has changed.
 *
 *   broker            HOST, HOST:PORT, mqtts://HOST:PORT      127.0.0.1:1883
 *   user              for the broker                          none
 *   password          of the user; or                         none
 *   password_file     a file with it; or                      none
 *   token_file        a file with a JSON Web Token            none
 *   ca                PEM: whom to trust; encrypts            the system's
 *   certificate       PEM: the device's, to show; encrypts    none
 *   key               PEM: of the certificate                 none
 *   server_name       what the broker's certificate is for,   the host
 *                     and what is asked for (SNI)
 *   root              the first levels of every topic         thinglog
 *   instance          the client id is DEVICE/INSTANCE        random
 *   level             DEBUG, INFO, WARN, ERROR or DISABLED,   INFO
 *                     while nothing remote says otherwise
 *   memory_bytes      for what is not delivered yet           8388608
 *   spool             a directory: events survive the         none
 *                     process until they are acknowledged
 *   spool_bytes       never exceeded there, from 4194304      67108864
 *   flush_age_ms      the longest an event waits for others   200
 *   batch_events      a batch leaves with so many events      1000
 *   batch_bytes       or with so many bytes                   262144
 *   reconnect_ms      reconnecting waits up to this at first  1000
 *   reconnect_max_ms  and up to this in the end               300000
 *   linger_ms         to deliver the rest after thinglog_free 5000
 *   attribute.NAME    what the device says of itself          none
 *   diagnostics       none, or stderr: the library's own      none
 *                     warnings, for the whole process
 */
int thinglog_options_set(thinglog_options *options, const char *key, const char *value,
                         char *error, size_t error_size);

/* NULL is fine. */
void thinglog_options_free(thinglog_options *options);

/*
 * Starts a publisher, which keeps nothing of `options`. A broker that is away is no error: it is tried
 * again until it is there. NULL and a reason in `error` when the options cannot stand together, the
 * spool cannot be used or there is no thread to be had.
 */
thinglog_publisher *thinglog_start(const thinglog_options *options, char *error,
                                   size_t error_size);

/* 1 when an event of this severity could pass: ask before building an expensive message. Else 0. */
int thinglog_enabled(const thinglog_publisher *publisher, int severity);

/*
 * Queues an event of `source` ("app" when NULL) that happens now: `message` has `length` bytes, or
 * THINGLOG_NUL_TERMINATED. Never waits for disk or network. Below the level of its source an event is
 * forgotten; when memory is full the least grave events are dropped, counted and declared to the
 * broker. Both are THINGLOG_OK.
 */
int thinglog_emit(const thinglog_publisher *publisher, const char *source, int severity,
                  const char *message, size_t length);

/* What an attribute holds. */
#define THINGLOG_STRING 1
#define THINGLOG_INTEGER 2
#define THINGLOG_NUMBER 3
#define THINGLOG_BOOLEAN 4

/* A key and its value. The functions below make them. */
typedef struct thinglog_attribute {
    const char *key;
    uint32_t type;
    size_t length; /* of a string, in bytes; or THINGLOG_NUL_TERMINATED */
    union {
        const char *string;
        int64_t integer;
        double number;
        int boolean;
    } value;
} thinglog_attribute;

/*
 * The same with a time (nanoseconds since 1970 UTC; 0 is now) and `count` attributes, at most 128 and
 * 64 KiB of them. What is over that, has no key or has an unknown type is left out; the attribute
 * "thinglog.dropped_attributes" then says how many.
 */
int thinglog_emit_kv(const thinglog_publisher *publisher, const char *source, int severity,
                     uint64_t time, const char *message, size_t length,
                     const thinglog_attribute *attributes, size_t count);

/*
 * Sends what is queued and waits up to `deadline_ms` until everything emitted before is durable: on
 * disk with a spool, else acknowledged by the broker. 1 when it is, 0 when not.
 */
int thinglog_flush(const thinglog_publisher *publisher, uint32_t deadline_ms);

/*
 * What a publisher has done and holds. Set `size` to sizeof(thinglog_counters): a program and a
 * library of different versions agree on what both know, and the rest is 0.
 */
typedef struct thinglog_counters {
    size_t size;
    uint64_t accepted;           /* events that passed their level */
    uint64_t filtered;           /* events below it */
    uint64_t dropped;            /* given up for want of room, or emitted after the end */
    uint64_t acknowledged;       /* events the broker has */
    uint64_t batches;            /* batches it has */
    uint64_t payload_bytes;      /* their bytes */
    uint64_t queued_events;      /* waiting in memory */
    uint64_t in_flight_events;   /* on their way */
    uint64_t memory_bytes;       /* held for both */
    uint64_t spool_bytes;        /* on disk */
    uint64_t unreadable_records; /* of the spool, skipped */
    uint64_t connects;           /* connections made */
    uint64_t connected;          /* 1 when there is one now */
} thinglog_counters;

int thinglog_get_counters(const thinglog_publisher *publisher, thinglog_counters *counters);

/*
 * Flushes, says goodbye to the broker and ends the publisher's thread. Returns what thinglog_flush
 * does. The handle stays valid: other threads may go on emitting, which goes nowhere but into
 * `dropped`.
 */
int thinglog_close(const thinglog_publisher *publisher, uint32_t deadline_ms);

/*
 * Frees the handle, which nobody may use any more. Without thinglog_close before, what is queued is
 * still sent in the background for `linger_ms`. NULL is fine.
 */
void thinglog_free(thinglog_publisher *publisher);

static inline thinglog_attribute thinglog_string(const char *key, const char *value) {
    thinglog_attribute attribute;
    attribute.key = key;
    attribute.type = THINGLOG_STRING;
    attribute.length = THINGLOG_NUL_TERMINATED;
    attribute.value.string = value;
    return attribute;
}

static inline thinglog_attribute thinglog_integer(const char *key, int64_t value) {
    thinglog_attribute attribute;
    attribute.key = key;
    attribute.type = THINGLOG_INTEGER;
    attribute.length = 0;
    attribute.value.integer = value;
    return attribute;
}

static inline thinglog_attribute thinglog_number(const char *key, double value) {
    thinglog_attribute attribute;
    attribute.key = key;
    attribute.type = THINGLOG_NUMBER;
    attribute.length = 0;
    attribute.value.number = value;
    return attribute;
}

static inline thinglog_attribute thinglog_boolean(const char *key, int value) {
    thinglog_attribute attribute;
    attribute.key = key;
    attribute.type = THINGLOG_BOOLEAN;
    attribute.length = 0;
    attribute.value.boolean = value;
    return attribute;
}

#if defined(__GNUC__)
#define THINGLOG_FORMAT(text, first) __attribute__((format(printf, text, first)))
#else
#define THINGLOG_FORMAT(text, first)
#endif

/*
 * thinglog_emit with a format of printf. A severity that cannot pass costs no formatting, and is not
 * counted as filtered either; a text of 512 bytes or more costs an allocation.
 */
static inline int thinglog_vprintf(const thinglog_publisher *publisher, const char *source,
                                   int severity, const char *format, va_list arguments) {
    char text[512];
    char *longer;
    va_list again;
    int length, status;

    if (!thinglog_enabled(publisher, severity)) {
        return publisher == NULL ? THINGLOG_ERROR_ARGUMENT : THINGLOG_OK;
    }
    va_copy(again, arguments);
    length = vsnprintf(text, sizeof text, format, arguments);
    if (length < 0) {
        status = THINGLOG_ERROR_ARGUMENT;
    } else if ((size_t)length < sizeof text) {
        status = thinglog_emit(publisher, source, severity, text, (size_t)length);
    } else {
        longer = (char *)malloc((size_t)length + 1);
        if (longer == NULL) {
            status = thinglog_emit(publisher, source, severity, text, sizeof text - 1);
        } else {
            vsnprintf(longer, (size_t)length + 1, format, again);
            status = thinglog_emit(publisher, source, severity, longer, (size_t)length);
            free(longer);
        }
    }
    va_end(again);
    return status;
}

static inline int thinglog_printf(const thinglog_publisher *publisher, const char *source,
                                  int severity, const char *format, ...) THINGLOG_FORMAT(4, 5);

static inline int thinglog_printf(const thinglog_publisher *publisher, const char *source,
                                  int severity, const char *format, ...) {
    va_list arguments;
    int status;

    va_start(arguments, format);
    status = thinglog_vprintf(publisher, source, severity, format, arguments);
    va_end(arguments);
    return status;
}

#ifdef __cplusplus
}
#endif

#endif
