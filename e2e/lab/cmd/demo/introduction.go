package main

// introduction is what one reads while the lab is built.
const introduction = `
Sallyport gives chosen pods one source address, the VIP, towards a partner that
admits nobody else. Replicated gateways hold it; when the holder dies, another does.

  pod-1-1 pod-1-2        pod-2-1 pod-2-2        pod-3-1 pod-3-2
       \   /                  \   /                  \   /
  n1 192.0.2.1           n2 192.0.2.2           n3 192.0.2.3     each with a gateway
         \______________________|______________________/         and an agent
                             router
                                |
     partner 203.0.113.5: its firewall admits only the VIP, 192.0.2.10

pod-N-1 are selected and must be seen as the VIP, whichever node they are on; pod-N-2
are not. All are network namespaces of this machine, with real packets between them
and the real programs in them. Each client asks by UDP every 5 ms, makes a new TCP
connection every 5 ms, and asks on one TCP connection that stays open. As gateways do
not share their connection tables yet, this one has a source port that no other pod
uses, and a TCP keepalive of 1 s: a new holder knows it when the pod's side speaks.

You will see the holder struck in four ways, and after each a picture of the moment,
10 ms a character (more when it takes longer):

  #  asked then and answered    .  lost    blank: nothing was asked
  o  answered late: TCP sent it again, which takes it 0.2 s on an open connection and
     1 s for a new one, however short the gap was
  1 2 3  the node that was heard to answer ARP for the VIP    .  nobody was

`
