// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Control
internal import HashRing

struct RingCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ring", abstract: "Shows the ring, and changes it while the store serves.",
        subcommands: [
            RingShow.self, RingPlan.self, RingAdd.self, RingRemove.self, RingReplace.self, RingAbort.self,
            RingResume.self,
        ])
}

extension NodeID: ExpressibleByArgument {
    package init?(argument: String) { self.init(argument) }
}

struct RingShow: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Shows who sits where, and what share of the slots each owns.")

    @OptionGroup var common: CommonOptions

    private struct Report: Encodable {
        let epoch: Epoch
        let replicas: Int
        let nodes: [Node]
        let standbys: [NodeID]

        struct Node: Encodable {
            let node: NodeID
            let positions: [Int]
            let slotsOwned: Int
        }
    }

    func run() async throws {
        try await common.withClient { client in
            let answer = try await client.ring()
            let ring = answer.ring.ring
            let owned = ring.slotsOwned
            let report = Report(
                epoch: answer.epoch, replicas: answer.replicas,
                nodes: ring.nodes.map { node in
                    Report.Node(
                        node: node, positions: ring.positions(of: node).map { Int($0.value) },
                        slotsOwned: owned[node] ?? 0)
                }, standbys: answer.standbys)
            if common.json { return try Console.json(report) }
            var table = TextTable(["NODE", "SLOTS", "SHARE", "POSITIONS"], figures: [1, 2])
            for node in report.nodes {
                let few = node.positions.prefix(8).map(\.description).joined(separator: " ")
                table.append([
                    node.node.description, "\(node.slotsOwned)", Figures.percent(node.slotsOwned, of: Slot.count),
                    node.positions.count > 8 ? "\(few) … (\(node.positions.count))" : few,
                ])
            }
            for node in report.standbys { table.append([node.description, "0", "-", "standby"]) }
            for line in table.lines { try Console.say(line) }
            try Console.say("epoch \(report.epoch), \(report.replicas) replicas")
        }
    }
}

/// Where a newcomer sits.
struct PositionOptions: ParsableArguments {
    @Option(help: ArgumentHelp("At this position (0…9999).", valueName: "position"))
    var position: Int?

    @Option(
        help: ArgumentHelp("At so many positions, which are picked (as many as the others have).", valueName: "number"))
    var positions: Int?

    func validate() throws {
        if position != nil, positions != nil { throw ValidationError("Either --position or --positions.") }
        if let position, Position(position) == nil { throw ValidationError("--position takes 0 to 9999.") }
        if let positions, !(1...PositionPicker.countLimit).contains(positions) {
            throw ValidationError("--positions takes 1 to \(PositionPicker.countLimit).")
        }
    }

    func request(for node: NodeID) -> ChangeRequest {
        if let position = position.flatMap({ Position($0) }) {
            return .exactly(.add(node: node, positions: [position]))
        }
        return .addAnywhere(node, count: positions)
    }
}

/// Nodes that are gone for good.
struct ForceOptions: ParsableArguments {
    @Flag(help: "Go on without the node that leaves: it is gone for good. The answer says what was lost.")
    var force = false

    @Option(help: ArgumentHelp("With --force: others that are gone as well.", valueName: "ip:port"))
    var without: [NodeID] = []

    func validate() throws {
        if !without.isEmpty, !force { throw ValidationError("--without goes with --force.") }
    }

    var query: String {
        force
            ? "?force=1" + (without.isEmpty ? "" : "&without=" + without.map(\.description).joined(separator: ",")) : ""
    }
}

struct RingAdd: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add", abstract: "Lets a node join; the pairs move while the store serves.",
        discussion: "Interrupting kvctl does not interrupt the change: kvctl ring resume waits for it again.")

    @Argument(help: ArgumentHelp("The node.", valueName: "ip:port"))
    var newcomer: NodeID

    @OptionGroup var place: PositionOptions
    @OptionGroup var common: CommonOptions

    func run() async throws {
        try await common.withClient { client in
            try await ChangeRun(client, isJSON: common.json).make(place.request(for: newcomer))
        }
    }
}

struct RingRemove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Lets a node leave; its pairs move while the store serves.")

    @Argument(help: ArgumentHelp("The node.", valueName: "ip:port"))
    var leaver: NodeID

    @OptionGroup var force: ForceOptions
    @OptionGroup var common: CommonOptions

    func run() async throws {
        try await common.withClient { client in
            try await ChangeRun(client, isJSON: common.json).make(
                .exactly(.remove(node: leaver)), query: force.query)
        }
    }
}

struct RingReplace: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replace", abstract: "Puts one node in the place of another, at its positions.")

    @Argument(help: ArgumentHelp("The node that leaves.", valueName: "old"))
    var leaver: NodeID

    @Argument(help: ArgumentHelp("The node that takes its place.", valueName: "new"))
    var newcomer: NodeID

    @OptionGroup var force: ForceOptions
    @OptionGroup var common: CommonOptions

    func run() async throws {
        try await common.withClient { client in
            try await ChangeRun(client, isJSON: common.json).make(
                .exactly(.replace(old: leaver, new: newcomer)), query: force.query)
        }
    }
}

struct RingAbort: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "abort", abstract: "Undoes the ring change that is under way, where it can be undone.")

    @OptionGroup var common: CommonOptions

    func run() async throws {
        try await common.withClient { client in try await ChangeRun(client, isJSON: common.json).abort() }
    }
}

struct RingResume: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resume", abstract: "Waits for the ring change that is under way, and has it gone on with.")

    @OptionGroup var common: CommonOptions

    func run() async throws {
        try await common.withClient { client in try await ChangeRun(client, isJSON: common.json).resume() }
    }
}

/// What a change would move. Nothing is changed.
struct RingPlan: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan", abstract: "Shows what a change would move, and makes none.",
        subcommands: [PlanAdd.self, PlanRemove.self, PlanReplace.self])
}

struct PlanAdd: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "add")

    @Argument(help: ArgumentHelp("The node.", valueName: "ip:port"))
    var newcomer: NodeID

    @OptionGroup var place: PositionOptions
    @OptionGroup var common: CommonOptions

    func run() async throws { try await showPlan(place.request(for: newcomer), common) }
}

struct PlanRemove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "remove")

    @Argument(help: ArgumentHelp("The node.", valueName: "ip:port"))
    var leaver: NodeID

    @OptionGroup var common: CommonOptions

    func run() async throws { try await showPlan(.exactly(.remove(node: leaver)), common) }
}

struct PlanReplace: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "replace")

    @Argument(help: ArgumentHelp("The node that leaves.", valueName: "old"))
    var leaver: NodeID

    @Argument(help: ArgumentHelp("The node that takes its place.", valueName: "new"))
    var newcomer: NodeID

    @OptionGroup var common: CommonOptions

    func run() async throws { try await showPlan(.exactly(.replace(old: leaver, new: newcomer)), common) }
}

private func showPlan(_ request: ChangeRequest, _ common: CommonOptions) async throws {
    try await common.withClient { client in
        let answer = try await client.ring()
        let document = RingDocument(
            epoch: answer.epoch, ring: answer.ring.ring, replicas: answer.replicas, standbys: answer.standbys)
        let preview: ChangePreview
        do throws(RingChangeError) {
            preview = try ChangePreview(request, of: document)
        } catch {
            if case .unknownNode = error { throw Failure(.notFound, error.sentence) }
            throw Failure(.refused, error.sentence)
        }
        // How many pairs a node has, its last snapshot tells.
        let pairs = await client.statuses(of: document.ring.nodes).compactMap { node, status in
            (try? status.get())?.snapshot?.pairs.map { (node, $0) }
        }
        let report = PlanReport(preview, held: Dictionary(uniqueKeysWithValues: pairs))
        if common.json { return try Console.json(report) }
        try Console.say("would \(report.change)")
        var table = TextTable(["NODE", "OWNS", "WOULD OWN", "HOLDS", "WOULD HOLD"], figures: [1, 2, 3, 4])
        for node in report.nodes {
            table.append([
                node.node.description, "\(node.slotsOwnedBefore)", "\(node.slotsOwnedAfter)", "\(node.slotsHeldBefore)",
                "\(node.slotsHeldAfter)",
            ])
        }
        for line in table.lines { try Console.say(line) }
        try Console.say(
            "\(Figures.percent(report.slotsWithNewOwner, of: Slot.count)) of all keys get another owner; "
                + "\(Figures.percent(report.copiesOfSlotsMoved, of: report.copiesOfSlots)) of all copies move"
                + (report.estimatedPairsMoved.map { ", about \($0) pairs" }
                    ?? " (how many pairs, no snapshot tells yet)"))
    }
}
