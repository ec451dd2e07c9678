# SPDX-License-Identifier: Apache-2.0

variable "name" {
  description = "What everything here is called by, and under which the tokens are kept: /NAME/tokens in SSM."
  type        = string
  default     = "kvserver"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "Small letters, digits and hyphens, 2 to 31 of them."
  }
}

variable "package" {
  description = "The daemon's Debian package, as deploy/package.sh makes it; its .sha256 has to be beside it."
  type        = string
}

variable "setup" {
  description = "setup.sh, haproxy.cfg and deploy/ of the checkout, as README.md beside this file packs them."
  type        = string
  default     = "setup.tar.gz"
}

variable "client_cidrs" {
  description = "From where clients may reach the balancer. There is no TLS between: private networks."
  type        = list(string)
  validation {
    condition     = length(var.client_cidrs) > 0 && alltrue([for block in var.client_cidrs : can(cidrnetmask(block)) && block != "0.0.0.0/0"])
    error_message = "IPv4 networks, such as 10.0.0.0/16, and not the whole Internet."
  }
}

variable "vpc_id" {
  description = "The VPC; null: the account's default one."
  type        = string
  default     = null
}

variable "subnet_ids" {
  description = "Subnets of that VPC, one for each availability zone that nodes are to be spread over; empty: the default ones."
  type        = list(string)
  default     = []
}

variable "first_host" {
  description = "The nodes' addresses in their subnets begin here: 20 is 10.0.1.20 in 10.0.1.0/24. Nobody else may have them."
  type        = number
  default     = 20
}

variable "public_addresses" {
  description = "Whether instances have public addresses too, by which they reach Debian's mirror where the subnets have no NAT. Nobody reaches them there but by client_cidrs and ssh_cidrs."
  type        = bool
  default     = true
}

variable "nodes" {
  description = "How many nodes there are. One that is added later joins the ring when it is told to (README.md)."
  type        = number
  default     = 3
  validation {
    condition     = var.nodes >= 1 && var.nodes <= 100 && floor(var.nodes) == var.nodes
    error_message = "1 to 100."
  }
}

variable "node_type" {
  description = "The nodes' instance type."
  type        = string
  default     = "m6i.large"
}

variable "balancer_type" {
  description = "The balancer's instance type."
  type        = string
  default     = "c6i.large"
}

variable "memory_mib" {
  description = "Memory for a node's pairs; null: two fifths of the instance's."
  type        = number
  default     = null
}

variable "peer_port" {
  description = "Where nodes call each other: 5000 and what kvserver.json has as peerPortOffset."
  type        = number
  default     = 15000
}

variable "key_name" {
  description = "An EC2 key pair for SSH, where there is to be SSH."
  type        = string
  default     = null
}

variable "ssh_cidrs" {
  description = "From where SSH is let in; empty: from nowhere."
  type        = list(string)
  default     = []
}
