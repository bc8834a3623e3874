/*
 * A thermometer that logs: reads a temperature now and then, logs it with its value as an attribute,
 * warns when it is too high, and leaves in order on SIGTERM.
 *
 *     sensor HOST:PORT DEVICE [READINGS [INTERVAL_MS [SPOOL]]]
 *
 *     cc -I edge/c/include edge/c/examples/sensor.c -L target/release -lthinglog -o sensor
 *     LD_LIBRARY_PATH=target/release ./sensor 127.0.0.1:1883 lamp-7
 */
#define _POSIX_C_SOURCE 200809L

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <thinglog.h>

static volatile sig_atomic_t stopping;

static void stop(int signal) {
    (void)signal;
    stopping = 1;
}

/* Degrees Celsius of the first thermal zone; false on a machine that has none. */
static int read_celsius(double *celsius) {
    FILE *file = fopen("/sys/class/thermal/thermal_zone0/temp", "r");
    long thousandths = 0;
    int read = 0;

    if (file != NULL) {
        read = fscanf(file, "%ld", &thousandths) == 1;
        fclose(file);
    }
    *celsius = (double)thousandths / 1000.0;
    return read;
}

static void log_reading(thinglog_publisher *log, long number) {
    const char *message = "a reading";
    thinglog_attribute attributes[4];
    double celsius = 0;
    int severity = THINGLOG_INFO;
    int real = read_celsius(&celsius);

    if (!real) {
        celsius = 20.0 + (double)(number % 80);
    }
    if (celsius > 85.0) {
        message = "it is too hot";
        severity = THINGLOG_WARN;
    }
    attributes[0] = thinglog_integer("reading", number);
    attributes[1] = thinglog_number("celsius", celsius);
    attributes[2] = thinglog_boolean("simulated", !real);
    attributes[3] = thinglog_string("zone", "thermal_zone0");
    thinglog_emit_kv(log, "sensor", severity, 0, message, THINGLOG_NUL_TERMINATED, attributes, 4);
}

static thinglog_publisher *start(const char *broker, const char *device, const char *spool) {
    char error[256] = "no memory";
    thinglog_options *options = thinglog_options_new(device);
    thinglog_publisher *log = NULL;

    if (options != NULL &&
        thinglog_options_set(options, "broker", broker, error, sizeof error) == THINGLOG_OK &&
        thinglog_options_set(options, "diagnostics", "stderr", error, sizeof error) == THINGLOG_OK &&
        (spool == NULL ||
         thinglog_options_set(options, "spool", spool, error, sizeof error) == THINGLOG_OK)) {
        log = thinglog_start(options, error, sizeof error);
    }
    thinglog_options_free(options);
    if (log == NULL) {
        fprintf(stderr, "sensor: %s\n", error);
    }
    return log;
}

int main(int count, char **arguments) {
    long readings = count > 3 ? strtol(arguments[3], NULL, 10) : 0;
    long interval = count > 4 ? strtol(arguments[4], NULL, 10) : 1000;
    thinglog_counters counters = {0};
    struct timespec pause;
    struct sigaction action = {0};
    thinglog_publisher *log;
    long number;
    int durable;

    if (count < 3) {
        fprintf(stderr, "usage: sensor HOST:PORT DEVICE [READINGS [INTERVAL_MS [SPOOL]]]\n");
        return 2;
    }
    action.sa_handler = stop;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    log = start(arguments[1], arguments[2], count > 5 ? arguments[5] : NULL);
    if (log == NULL) {
        return 1;
    }
    pause.tv_sec = interval / 1000;
    pause.tv_nsec = interval % 1000 * 1000000;
    thinglog_printf(log, "sensor", THINGLOG_NOTICE, "sensor begins, thinglog %s",
                    thinglog_version());
    for (number = 1; !stopping && (readings == 0 || number <= readings); number++) {
        log_reading(log, number);
        nanosleep(&pause, NULL);
    }
    thinglog_printf(log, "sensor", THINGLOG_NOTICE, "sensor ends after %ld readings", number - 1);

    durable = thinglog_close(log, 10000);
    counters.size = sizeof counters;
    thinglog_get_counters(log, &counters);
    thinglog_free(log);
    printf("%llu events, %llu acknowledged, %llu dropped\n",
           (unsigned long long)counters.accepted, (unsigned long long)counters.acknowledged,
           (unsigned long long)counters.dropped);
    return durable == 1 ? 0 : 1;
}
