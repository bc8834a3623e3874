/* The library in the hands of somebody careless: abuse BROKER. Ends with 0 when all of it was borne. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <thinglog.h>

#define THREADS 4
#define EVENTS 1000

#define EXPECT(condition)                                                  \
    do {                                                                   \
        if (!(condition)) {                                                \
            fprintf(stderr, "line %d: not %s\n", __LINE__, #condition);    \
            return 1;                                                      \
        }                                                                  \
    } while (0)

static thinglog_publisher *publisher;

static void *emit_some(void *argument) {
    int number;

    for (number = 0; number < EVENTS; number++) {
        thinglog_printf(publisher, "threads", THINGLOG_INFO, "%s %d", (const char *)argument,
                        number);
    }
    return NULL;
}

static int nothing_comes_of_null(void) {
    char error[16];
    thinglog_options *options = thinglog_options_new("abused");
    thinglog_counters counters = {0};

    EXPECT(thinglog_options_new(NULL) == NULL);
    EXPECT(thinglog_options_set(NULL, "level", "INFO", NULL, 0) == THINGLOG_ERROR_ARGUMENT);
    EXPECT(thinglog_options_set(options, NULL, "INFO", NULL, 0) == THINGLOG_ERROR_ARGUMENT);
    EXPECT(thinglog_options_set(options, "level", NULL, NULL, 0) == THINGLOG_ERROR_ARGUMENT);
    EXPECT(thinglog_options_set(options, "lewel", "INFO", error, sizeof error) ==
           THINGLOG_ERROR_ARGUMENT);
    EXPECT(strcmp(error, "lewel: there is") == 0);
    thinglog_options_free(options);
    thinglog_options_free(NULL);
    EXPECT(thinglog_start(NULL, error, sizeof error) == NULL);
    EXPECT(strcmp(error, "the options are") == 0);
    EXPECT(thinglog_enabled(NULL, THINGLOG_ERROR) == 0);
    EXPECT(thinglog_emit(NULL, "app", THINGLOG_INFO, "m", 1) == THINGLOG_ERROR_ARGUMENT);
    EXPECT(thinglog_printf(NULL, "app", THINGLOG_INFO, "m") == THINGLOG_ERROR_ARGUMENT);
    EXPECT(thinglog_flush(NULL, 0) == THINGLOG_ERROR_ARGUMENT);
    EXPECT(thinglog_get_counters(NULL, &counters) == THINGLOG_ERROR_ARGUMENT);
    EXPECT(thinglog_close(NULL, 0) == THINGLOG_ERROR_ARGUMENT);
    thinglog_free(NULL);
    EXPECT(strlen(thinglog_strerror(THINGLOG_ERROR_ARGUMENT)) > 0);
    EXPECT(strlen(thinglog_strerror(-1000)) > 0);
    return 0;
}

static int bad_events_are_borne(void) {
    thinglog_attribute bad = thinglog_string(NULL, "no key");
    static char large[600 * 1024];

    EXPECT(thinglog_emit(publisher, "bad", THINGLOG_INFO, NULL, 3) == THINGLOG_ERROR_ARGUMENT);
    EXPECT(thinglog_emit_kv(publisher, "bad", THINGLOG_INFO, 0, "m", 1, NULL, 1) ==
           THINGLOG_ERROR_ARGUMENT);
    EXPECT(thinglog_emit(publisher, NULL, -7, "neither source nor severity",
                         THINGLOG_NUL_TERMINATED) == THINGLOG_OK);
    EXPECT(thinglog_emit(publisher, "bad", THINGLOG_SYSLOG(4), "caf\xE9", 4) == THINGLOG_OK);
    EXPECT(thinglog_emit_kv(publisher, "bad", THINGLOG_INFO, 1767323045000000000u, "no key", 6,
                            &bad, 1) == THINGLOG_OK);
    memset(large, 'x', sizeof large - 1);
    EXPECT(thinglog_printf(publisher, "bad", THINGLOG_INFO, "%s", large) == THINGLOG_OK);
    EXPECT(thinglog_printf(publisher, "bad", THINGLOG_DEBUG, "filtered") == THINGLOG_OK);
    return 0;
}

static thinglog_publisher *start(const char *broker) {
    char error[256] = "";
    thinglog_options *options = thinglog_options_new("abused");
    thinglog_publisher *started = NULL;

    if (thinglog_options_set(options, "broker", broker, error, sizeof error) == THINGLOG_OK &&
        thinglog_options_set(options, "reconnect_ms", "100", error, sizeof error) == THINGLOG_OK) {
        started = thinglog_start(options, error, sizeof error);
    }
    thinglog_options_free(options);
    fputs(error, stderr);
    return started;
}

int main(int count, char **arguments) {
    static const char *names[THREADS] = {"first", "second", "third", "fourth"};
    pthread_t threads[THREADS];
    thinglog_counters counters = {0};
    int n;

    EXPECT(count == 2);
    EXPECT(nothing_comes_of_null() == 0);
    publisher = start(arguments[1]);
    EXPECT(publisher != NULL);
    for (n = 0; n < THREADS; n++) {
        EXPECT(pthread_create(&threads[n], NULL, emit_some, (void *)names[n]) == 0);
    }
    for (n = 0; n < THREADS; n++) {
        EXPECT(pthread_join(threads[n], NULL) == 0);
    }
    EXPECT(bad_events_are_borne() == 0);
    EXPECT(thinglog_flush(publisher, 20000) == 1);
    EXPECT(thinglog_get_counters(publisher, &counters) == THINGLOG_ERROR_ARGUMENT);
    counters.size = sizeof counters;
    EXPECT(thinglog_get_counters(publisher, &counters) == THINGLOG_OK);
    EXPECT(counters.acknowledged == THREADS * EVENTS + 4);
    EXPECT(counters.dropped == 0 && counters.connected == 1);

    EXPECT(thinglog_close(publisher, 20000) == 1);
    EXPECT(thinglog_enabled(publisher, THINGLOG_FATAL) == 0);
    EXPECT(thinglog_emit(publisher, "late", THINGLOG_ERROR, "late", 4) == THINGLOG_OK);
    EXPECT(thinglog_flush(publisher, 20000) == 0);
    EXPECT(thinglog_close(publisher, 20000) == 0);
    thinglog_get_counters(publisher, &counters);
    EXPECT(counters.dropped == 1);
    thinglog_free(publisher);
    return 0;
}
