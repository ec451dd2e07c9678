// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import TestSupport

/// The way back of a memory that was lost: as `Recovery` does it.
extension Worker {
    struct RepairAnswer {
        let job: JobAnswer
        let isWhole: Bool
    }

    func recoverLater() {
        after(200 * World.millisecond) {
            self.recover()
            self.recoverLater()
        }
    }

    private func recover() {
        guard let view, view.stamp.isRecovering, let document = view.document, !host.isHanging,
            host.memory.stamp == view.stamp,
            host.memory.record?.isWithoutWhatWasVerified(memory(view.stamp.generation)) != true
        else { return }
        let memory = host.memory
        let began = memory.recoveryBegan ?? world.now
        memory.recoveryBegan = began
        let pause = Limits.countedMilliseconds + 500
        guard world.now - began >= pause * World.millisecond else { return }
        let target = RingTransition.Fence(node: node, generation: view.stamp.generation)
        let plan = RefillPlan(document, node: node)
        var silent = plan.sources.count
        var whole: Set<NodeID> = []
        var recovering: Set<NodeID> = []
        func heard(_ source: NodeID, _ answer: RepairAnswer?) {
            silent -= 1
            if let answer, answer.job.state == .done {
                if answer.isWhole { whole.insert(source) } else { recovering.insert(source) }
            }
            if silent == 0 { decide() }
        }
        func decide() {
            guard plan.verdict(whole: whole, recovering: recovering) != .incomplete else { return }
            host.atMemory(world.random.pick(20...300)) { memory in
                guard memory.stamp == view.stamp else { return }
                memory.stamp?.isRecovering = false
                self.world.reached(.refilled)
            }
        }
        if plan.isEmpty { decide() }
        for source in plan.sources.sorted() {
            call(source, timeout: World.second, mayRepeat: true) {
                $0.repair(document, target, $1)
            } completion: { answer, _ in
                heard(source, answer)
            }
        }
    }

    private func repair(
        _ document: RingDocument, _ target: RingTransition.Fence, _ reply: @escaping (RepairAnswer?) -> Void
    ) {
        learn(document)
        host.atMemory(world.random.pick(20...300), broken: { self.after(10) { reply(nil) } }) { memory in
            guard let stamp = memory.stamp else { return self.after(10) { reply(nil) } }
            let name = "\(stamp.isRecovering ? "the remains" : "all") for \(target.node) in \(target.generation)"
            self.after(self.world.random.pick(10...100)) {
                self.job(.repair(RepairJob(target: target)), document, changeID: name) { answer in
                    guard let answer else { return reply(nil) }
                    let isWhole = !stamp.isRecovering && answer.generation == stamp.generation
                    reply(RepairAnswer(job: answer, isWhole: isWhole))
                }
            }
        }
    }
}
