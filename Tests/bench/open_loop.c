// SPDX-License-Identifier: Apache-2.0
//
// GETs that are sent when they are due, however long the answers before them take, so that a server that stops for a
// moment is charged for all that came due meanwhile. open_loop.py does so in tests; this one is exact to microseconds
// at a hundred thousand requests a second, for latencies.
//
//   open_loop IP PORT RATE SECONDS CONNECTIONS COUNT TARGET
//
// A request is TARGET and a number below COUNT. What is due goes out on an idle connection, or waits for one; it always
// counts from when it was due. What was sent and has no answer 2 s after the end is an error; what could not even be
// sent by then counts as having taken until then.
// Prints as keys.lua does: requests a second, errors, median and 99th percentile in µs; and the 99.9th.
//
// It never sleeps: a timer's wake-up would be late by more than many an answer takes. Give it a processor of its own.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 4096, HEAD_BYTES = 16384, GRACE_NANOSECONDS = 2000000000 };

struct connection {
    int descriptor;      // -1: lost
    int is_busy;
    int64_t due;         // of the request that is under way
    char head[HEAD_BYTES + 1];
    size_t received;     // of the head; and of the body's begin, until the head is whole
    long body_missing;   // -1: the head is not whole yet
};

static struct connection connections[MOST_CONNECTIONS];
static int idle[MOST_CONNECTIONS], idle_count;
static uint32_t *latencies;   // in µs
static long answered, errors, most;

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "open_loop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void count_latency(int64_t due, int64_t end) {
    if (answered < most) latencies[answered++] = (uint32_t)((end - due) / 1000);
}

static void lose(struct connection *connection) {
    errors += 1;
    close(connection->descriptor);
    connection->descriptor = -1;
}

static void send_request(struct connection *connection, int64_t due, const char *host, const char *target, long count) {
    char request[4096];
    int length = snprintf(request, sizeof request, "GET %s%ld HTTP/1.1\r\nHost: %s\r\n\r\n",
                          target, random() % count, host);
    connection->is_busy = 1;
    connection->due = due;
    connection->received = 0;
    connection->body_missing = -1;
    if (send(connection->descriptor, request, (size_t)length, MSG_NOSIGNAL) != length) lose(connection);
}

// Whether the answer is whole.
static int receive(struct connection *connection) {
    static char body[1 << 18];
    if (connection->body_missing >= 0) {
        ssize_t length = recv(connection->descriptor, body, sizeof body, 0);
        if (length < 0 && errno == EAGAIN) return 0;
        if (length <= 0) return lose(connection), 0;
        connection->body_missing -= length;
        return connection->body_missing <= 0;
    }
    ssize_t length = recv(connection->descriptor, connection->head + connection->received,
                          HEAD_BYTES - connection->received, 0);
    if (length < 0 && errno == EAGAIN) return 0;
    if (length <= 0) return lose(connection), 0;
    connection->received += (size_t)length;
    connection->head[connection->received] = 0;
    char *end = strstr(connection->head, "\r\n\r\n");
    if (end == NULL) return 0;
    // (All servers that are compared say how long their answers are.)
    char *field = strcasestr(connection->head, "\r\ncontent-length:");
    if (strncmp(connection->head, "HTTP/1.1 200", 12) != 0 || field == NULL || field > end) return lose(connection), 0;
    connection->body_missing = atol(field + 17) - (long)(connection->head + connection->received - end - 4);
    return connection->body_missing <= 0;
}

static int ascending(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static uint32_t percentile(double part) {
    return answered == 0 ? 0 : latencies[(long)(part * (double)(answered - 1))];
}

int main(int argc, char **argv) {
    if (argc != 8) return fprintf(stderr, "open_loop IP PORT RATE SECONDS CONNECTIONS COUNT TARGET\n"), 64;
    double rate = atof(argv[3]), seconds = atof(argv[4]);
    int connection_count = atoi(argv[5]);
    long count = atol(argv[6]);
    most = (long)(rate * seconds);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    if (most < 1 || count < 1 || connection_count < 1 || connection_count > MOST_CONNECTIONS || strlen(argv[7]) > 2048
        || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1)
        return fprintf(stderr, "open_loop: no such load\n"), 64;
    latencies = malloc((size_t)most * sizeof *latencies);
    int poll = epoll_create1(0);
    if (latencies == NULL || poll < 0) fail("preparing");
    for (int index = 0; index < connection_count; index++) {
        struct connection *connection = &connections[index];
        int one = 1;
        connection->descriptor = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(connection->descriptor, (struct sockaddr *)&address, sizeof address) != 0) fail("connecting");
        setsockopt(connection->descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(connection->descriptor, F_SETFL, O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)index};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, connection->descriptor, &event) != 0) fail("polling");
        idle[idle_count++] = index;
    }

    int64_t began = now(), end = began + (int64_t)(seconds * 1e9);
    long sent = 0, under_way = 0, ended_in_time = 0;
    for (;;) {
        int64_t time = now();
        while (sent < most && idle_count > 0) {
            int64_t due = began + (int64_t)((double)sent / rate * 1e9);
            if (due > time) break;
            struct connection *connection = &connections[idle[--idle_count]];
            send_request(connection, due, argv[1], argv[7], count);
            under_way += connection->descriptor >= 0;
            sent += 1;
        }
        int is_over = sent == most || idle_count == 0;
        if ((is_over && under_way == 0) || time > end + GRACE_NANOSECONDS) break;
        struct epoll_event events[64];
        int ready = epoll_wait(poll, events, 64, 0);
        for (int place = 0; place < ready; place++) {
            struct connection *connection = &connections[events[place].data.u32];
            if (!connection->is_busy) return fprintf(stderr, "open_loop: an idle connection was closed\n"), 1;
            int is_whole = receive(connection);
            if (!is_whole && connection->descriptor >= 0) continue;
            under_way -= 1;
            connection->is_busy = 0;
            if (!is_whole) continue;
            int64_t answer = now();
            count_latency(connection->due, answer);
            ended_in_time += answer <= end;
            idle[idle_count++] = (int)events[place].data.u32;
        }
    }
    int64_t time = now();
    errors += under_way;
    for (; sent < most; sent++) count_latency(began + (int64_t)((double)sent / rate * 1e9), time);
    qsort(latencies, (size_t)answered, sizeof *latencies, ascending);
    printf("figures %.0f %ld %u %u %u\n", (double)ended_in_time / seconds, errors,
           percentile(0.5), percentile(0.99), percentile(0.999));
    return 0;
}
