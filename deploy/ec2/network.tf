# SPDX-License-Identifier: Apache-2.0
#
# Who may reach whom: clients the balancer, the balancer the nodes, the nodes each other, and nothing else. (Between the parts both ends
# say so: what one lets out the other lets in.)

resource "aws_security_group" "balancer" {
  name        = "${var.name}-balancer"
  description = "The balancer of ${var.name}"
  vpc_id      = data.aws_vpc.store.id
}

resource "aws_security_group" "node" {
  name        = "${var.name}-node"
  description = "The nodes of ${var.name}"
  vpc_id      = data.aws_vpc.store.id
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each          = toset(var.client_cidrs)
  description       = "clients"
  security_group_id = aws_security_group.balancer.id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = local.port
  to_port           = local.port
}

resource "aws_vpc_security_group_ingress_rule" "balancer" {
  description                  = "the balancer"
  security_group_id            = aws_security_group.node.id
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  description                  = "to the nodes"
  security_group_id            = aws_security_group.balancer.id
  referenced_security_group_id = aws_security_group.node.id
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
}

# (At the clients' port the first node gives the others their ring, and kvctl on a node asks them.)
resource "aws_vpc_security_group_ingress_rule" "nodes" {
  for_each                     = toset([tostring(local.port), tostring(var.peer_port)])
  description                  = "the nodes"
  security_group_id            = aws_security_group.node.id
  referenced_security_group_id = aws_security_group.node.id
  ip_protocol                  = "tcp"
  from_port                    = tonumber(each.value)
  to_port                      = tonumber(each.value)
}

resource "aws_vpc_security_group_egress_rule" "nodes" {
  for_each                     = toset([tostring(local.port), tostring(var.peer_port)])
  description                  = "to the nodes"
  security_group_id            = aws_security_group.node.id
  referenced_security_group_id = aws_security_group.node.id
  ip_protocol                  = "tcp"
  from_port                    = tonumber(each.value)
  to_port                      = tonumber(each.value)
}

locals {
  groups = { node = aws_security_group.node.id, balancer = aws_security_group.balancer.id }
  ways_out = {
    for way in setproduct(keys(local.groups), [80, 443]) : "${way[0]}-${way[1]}" => { group = local.groups[way[0]], port = way[1] }
  }
  ways_in = {
    for way in setproduct(keys(local.groups), var.ssh_cidrs) : "${way[0]}-${way[1]}" => { group = local.groups[way[0]], block = way[1] }
  }
}

# Debian's mirror, S3 and SSM.
resource "aws_vpc_security_group_egress_rule" "out" {
  for_each          = local.ways_out
  description       = "packages, S3, SSM"
  security_group_id = each.value.group
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
}

resource "aws_vpc_security_group_ingress_rule" "ssh" {
  for_each          = local.ways_in
  description       = "administrators"
  security_group_id = each.value.group
  cidr_ipv4         = each.value.block
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
}
