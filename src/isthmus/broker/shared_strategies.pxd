# C types of shared_strategies.py; the code is there.
cimport cython

from isthmus.broker.shared cimport Member, ShareGroup
from isthmus.mqtt.delivery cimport Delivery
from isthmus.mqtt.packets cimport Publish
from isthmus.mqtt.session cimport Session


cdef class StickyGroup(ShareGroup):
    cdef Member _current

    @cython.locals(current=Member)
    cdef Member _choose(self, int qos)


cdef class HashedGroup(ShareGroup):
    cdef list _owners

    @cython.locals(owner=Member)
    cdef _arrive(self, Member member)
    @cython.locals(owner=Member)
    cdef _go(self, Member member)
    @cython.locals(member=Member, found=Member)
    cdef Member _heaviest(self, int slot, bytes topic_name)
    @cython.locals(owner=Member, slot=int)
    cdef Member _owner(self, bytes key, bytes topic_name)
    @cython.locals(member=Member)
    cpdef deliver(self, Publish publish, bytes key, object partition, long long offset)
    cdef _give(self, Member member, Publish publish, object partition, long long offset)
    cdef _give_on(self, Member member)
    @cython.locals(member=Member)
    cdef Session _reader(self)
    @cython.locals(head=Delivery, owner=Member, publish=Publish, member=Member)
    cpdef drain(self)
