# SPDX-License-Identifier: Apache-2.0

output "store" {
  description = "Where clients find it."
  value       = "http://${aws_instance.balancer.private_ip}:${local.port}"
}

output "nodes" {
  description = "The nodes, as the ring knows them."
  value       = [for ip in local.node_ips : "${ip}:${local.port}"]
}

output "instances" {
  description = "The instances, by the addresses at which SSH is let in, if it is."
  value = {
    for instance in concat(aws_instance.node, [aws_instance.balancer]) : instance.tags["Name"] => coalesce(instance.public_ip, instance.private_ip)
  }
}
