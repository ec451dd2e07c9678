// SPDX-License-Identifier: Apache-2.0

/// What each metric of `GET /metrics` says, and in which buckets it counts. docs/metrics.md holds the same for readers
/// (the end-to-end tests compare the two).
enum MetricCatalogue {
    @Sendable static func help(_ metric: String) -> String { texts[metric] ?? "No description." }

    /// Nil: the usual ones.
    @Sendable static func bounds(_ metric: String) -> [Double]? {
        // A turn of a lane is a round trip or two over a unix socket.
        metric == "kvserver_lane_turn_duration_seconds"
            ? [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5] : nil
    }

    private static let texts = [
        // Requests.
        "kvserver_request_duration_seconds":
            "From a request's last byte until its answer is written, by what became of it (X-KV-Outcome).",
        "kvserver_connections": "Connections that are open.",
        "kvserver_connections_accepted_total": "Connections that were accepted.",
        "kvserver_front_held_bytes": "Bodies being received and answers that wait to be sent.",

        // Commands of memcached's protocol.
        "kvserver_command_duration_seconds":
            "From a command's last byte until its answer is written, by what became of it.",
        "kvserver_command_connections": "Connections that are open for memcached's protocol.",
        "kvserver_command_connections_accepted_total": "Connections that were accepted for memcached's protocol.",
        "kvserver_command_held_bytes":
            "Values being received, and answers that wait to be sent, in memcached's protocol.",

        // memcached and peers.
        "kvserver_lane_turn_operations": "Operations that went to memcached together.",
        "kvserver_lane_turn_duration_seconds": "From a lane's turn to memcached until all of it is answered.",
        "kvserver_lane_late_operations_total": "Operations whose time was up before memcached was asked.",
        "kvserver_lane_waiting_operations": "Operations that wait for a lane.",
        "kvserver_peer_batch_operations": "Operations that went to another node together.",
        "kvserver_peer_batch_duration_seconds": "From a batch to another node until its answer, or its failure.",
        "kvserver_peer_batches_total": "Batches to a node, by what became of them.",
        "kvserver_peer_operations_total": "Operations sent to a node.",
        "kvserver_peer_waiting_operations": "Operations that wait for a connection to another node.",

        // Processes.
        "kvserver_info": "Always 1; the labels tell which program and node this is.",
        "kvserver_start_time_seconds": "When the supervisor was started, since 1970.",
        "kvserver_workers": "Workers that live.",
        "kvserver_workers_wanted": "Workers that the configuration asks for.",
        "kvserver_worker_starts_total": "Workers that were started.",
        "kvserver_worker_restarts_total": "Workers that had to be replaced, by why.",
        "kvserver_worker_drains_overdue_total": "Workers that did not leave in time and were killed.",
        "kvserver_workers_resident_memory_bytes": "Memory of the workers.",
        "kvserver_metrics_refused_series_total": "Series that are not counted, for want of room.",

        // The ring.
        "kvserver_ring_epoch": "Epoch of the ring; 0: there is none.",
        "kvserver_ring_members": "Nodes of the ring.",
        "kvserver_ring_standbys": "Nodes that stand by.",
        "kvserver_ring_positions": "Positions of this node.",
        "kvserver_ring_replicas": "Nodes that hold each pair.",
        "kvserver_ring_transition_step": "1 for the step that a ring change stands on.",
        "kvserver_ring_transition_found_pairs": "Pairs that a node found to be moved or looked at, in this step.",
        "kvserver_ring_transition_done_pairs": "Those of them that are done.",
        "kvserver_ring_transition_moved_pairs": "Those of them that another node took.",
        "kvserver_ring_transition_moved_bytes": "Their bytes.",
        "kvserver_ring_transition_duration_seconds": "How long a node has been at this step's work.",
        "kvserver_ring_last_change": "1 for how the last ring change ended.",

        // The memory and its way back.
        "kvserver_recovering": "1 while this node's memory is being refilled.",
        "kvserver_recovery_found_pairs": "Pairs that a source found to be given back.",
        "kvserver_recovery_done_pairs": "Those of them that were given.",
        "kvserver_recovery_snapshot_pairs": "Pairs that came from the disk.",

        // Replicas.
        "kvserver_read_repairs_total": "Pairs sent after a read to nodes that lacked them.",
        "kvserver_read_write_backs_total": "Pairs that a read had stored where they lacked, before its answer.",
        "kvserver_antientropy_passes_total": "Comparisons with other replicas, by how they ended.",
        "kvserver_antientropy_differing_slots_total": "Slots in which replicas differed.",
        "kvserver_chunks_deleted_total": "Chunks of large values that were deleted because no value needs them.",
        "kvserver_antientropy_repaired_pairs_total": "Pairs that were given to whoever lacked them.",
        "kvserver_antientropy_last_differing_slots": "Slots in which replicas differed, in the latest pass.",
        "kvserver_antientropy_last_repaired_pairs": "Pairs given in the latest pass.",
        "kvserver_antientropy_last_duration_seconds": "How long the latest pass took.",
        "kvserver_antientropy_last_end_time_seconds": "When the latest pass ended, since 1970.",
        "kvserver_antientropy_last_failed": "1 where the latest pass did not end well.",
        "kvserver_hints_waiting": "Hints kept for other nodes, about.",
        "kvserver_hints_waiting_bytes": "Their bytes.",
        "kvserver_hints_delivered_total": "Hints handed on, since memcached was started.",
        "kvserver_hints_dropped_total": "Hints that were too old to be handed on.",
        "kvserver_hints_refused_total": "Hints that there was no room for.",
        "kvserver_hints_last_failed": "1 where the latest pass over the hints did not end.",

        // Other nodes and clocks.
        "kvserver_peer_up": "1 where a node answered the latest heartbeat.",
        "kvserver_peer_round_trip_seconds": "How long a node took to answer the latest heartbeat.",
        "kvserver_peer_clock_offset_seconds": "A node's wall clock less this one's.",
        "kvserver_clock_ahead": "1 while writes are refused, for this clock is too far ahead of the others.",
        "kvserver_clock_refused_readings_total": "Readings of other clocks that were too far ahead to be followed.",

        // Disk.
        "kvserver_snapshot_interval_seconds": "How often the pairs are written to disk; 0: never.",
        "kvserver_snapshot_end_time_seconds": "When the latest snapshot was finished, since 1970.",
        "kvserver_snapshot_pairs": "Pairs in the latest snapshot.",
        "kvserver_snapshot_bytes": "Bytes of the latest snapshot's pairs.",
        "kvserver_snapshot_duration_seconds": "How long the latest snapshot took.",
        "kvserver_snapshot_last_failed": "1 where the latest attempt failed.",
        "kvserver_log_enabled": "1 where each write goes to a log.",
        "kvserver_log_segments": "Files of the log.",
        "kvserver_log_bytes": "Their bytes.",
        "kvserver_log_last_sync_time_seconds": "When the log was synced last, since 1970.",
        "kvserver_log_refused_turns_total": "Turns of a lane whose writes could not be logged and were refused.",
        "kvserver_log_failing": "1 while a worker's log refuses writes.",

        // memcached's own.
        "kvserver_memcached_up": "1 where memcached answers.",
        "kvserver_memcached_item_limit_bytes": "The largest item that memcached takes.",
        "kvserver_memcached_stored_bytes": "Bytes of memcached's items.",
        "kvserver_memcached_limit_bytes": "Bytes that memcached may store.",
        "kvserver_memcached_items": "Items in memcached: pairs, tombstones, hints, and what the workers share.",
        "kvserver_memcached_stored_items_total": "Items that memcached has stored.",
        "kvserver_memcached_evictions_total": "Items that memcached threw away for want of room: always 0 here.",
        "kvserver_memcached_expired_unread_items_total": "Items that expired without having been read.",
        "kvserver_memcached_reclaimed_items_total": "Items that took the place of expired ones.",
        "kvserver_memcached_connections": "Connections to memcached.",
        "kvserver_memcached_connections_accepted_total": "Connections that memcached has accepted.",
        "kvserver_memcached_connections_rejected_total": "Connections that memcached has refused.",
        "kvserver_memcached_commands_total": "Commands that memcached has done.",
        "kvserver_memcached_gets_total": "Keys that memcached was asked for, by whether it had them.",
        "kvserver_memcached_cas_total": "Stores by cas, by what became of them.",
        "kvserver_memcached_failed_stores_total": "Stores that memcached refused, by why.",
        "kvserver_memcached_received_bytes_total": "Bytes that memcached has received.",
        "kvserver_memcached_sent_bytes_total": "Bytes that memcached has sent.",
        "kvserver_memcached_cpu_seconds_total": "Processor time of memcached.",
        "kvserver_memcached_uptime_seconds": "How long memcached has run.",
        "kvserver_memcached_threads": "memcached's threads.",
    ]
}
