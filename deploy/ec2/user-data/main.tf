# SPDX-License-Identifier: Apache-2.0
#
# What cloud-init does at the first boot. There is no secret in it: whoever may describe an instance, or be a process on one, can read it.

variable "name" { type = string }
variable "region" { type = string }
variable "bucket" { type = string }
variable "package" { type = string }
variable "package_sha256" { type = string }
variable "setup" { type = string }
variable "setup_sha256" { type = string }
variable "addresses" { type = list(string) }
variable "memory_mib" {
  type     = number
  nullable = true
}

locals {
  shared = {
    AWS_REGION     = var.region
    BUCKET         = var.bucket
    PACKAGE        = var.package
    PACKAGE_SHA256 = var.package_sha256
    SETUP          = var.setup
    SETUP_SHA256   = var.setup_sha256
    ALL_NODES      = join(" ", var.addresses)
    TOKENS         = "/${var.name}/tokens"
    MEMORY         = var.memory_mib == null ? "" : tostring(var.memory_mib)
  }
  roles = concat(
    [for address in var.addresses : merge(local.shared, { ROLE = "node", ADDRESS = address })],
    [merge(local.shared, { ROLE = "balancer", ADDRESS = "" })]
  )
  rendered = [
    for settings in local.roles : join("\n", ["#cloud-config", yamlencode({
      package_update = true
      packages       = ["awscli", "curl"]
      write_files = [
        {
          path        = "/etc/kvserver-first-boot.env"
          permissions = "0644"
          content     = join("", [for key, value in settings : "${key}='${value}'\n"])
        },
        {
          path        = "/usr/local/sbin/kvserver-first-boot"
          permissions = "0755"
          content     = file("${path.module}/first-boot.sh")
        },
      ]
      runcmd = [["/usr/local/sbin/kvserver-first-boot"]]
    })])
  ]
}

output "nodes" {
  description = "For each node, in the order of `addresses`."
  value       = slice(local.rendered, 0, length(var.addresses))
}

output "balancer" {
  description = "For the balancer."
  value       = local.rendered[length(var.addresses)]
}
