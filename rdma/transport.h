/* SPDX-License-Identifier: Apache-2.0 */
/*
 * transport.h: byte streams between nodes, whatever carries them.
 *
 * A transport makes listeners and links.  A link is a reliable, ordered
 * stream of bytes both ways; frames (au_wire.h) are cut out of it by whoever
 * receives.  Unix sockets and TCP are here (transport_uv.c); one on RDMA verbs
 * provides the same table and the same four events.
 *
 * Everything runs on one libuv loop's thread; events come from the loop.
 *
 * Invariants:
 *  1. Events of a link: opened, then received and sent in any number, then
 *     closed, once.  After closed the link is gone.
 *  2. Received bytes are offered until they are consumed; none are offered
 *     while reading is off.
 *  3. Memory of a link: its input buffer (as large as the frame that its
 *     receiver waits for, AU_LINK_BUFFER_MAX at most) and what it was given
 *     to send; the sender watches the latter through `sent`.
 *  4. A link that is being closed gives up on a peer that takes nothing after
 *     AU_LINK_LINGER_MS.
 */
#ifndef AU_TRANSPORT_H
#define AU_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define AU_LINK_BUFFER_MIN (16u << 10)
#define AU_LINK_BUFFER_MAX ((4u << 20) + 64)
#define AU_LINK_LINGER_MS 1000

typedef struct AuLink AuLink;
typedef struct AuListener AuListener;

typedef struct AuTransportEvents
{
	/* A link was accepted, or a connect succeeded.  Returns the caller's
	 * handle for it (au_link_user). */
	void	   *(*opened) (void *ctx, AuLink *link);
	/* Returns how many bytes are consumed; *need: how many at least must be
	 * there before it is worth asking again. */
	size_t		(*received) (void *ctx, AuLink *link, const uint8_t *bytes, size_t len, size_t *need);
	/* These bytes left; may come from within au_link_send. */
	void		(*sent) (void *ctx, AuLink *link, size_t bytes);
	/* why: "" for an ordinary end. */
	void		(*closed) (void *ctx, AuLink *link, const char *why);
} AuTransportEvents;

typedef struct AuTransport
{
	const char *name;
	/*
	 * Addresses: a path for Unix sockets (a socket file nobody listens on is
	 * replaced; mode 0600), host:port for TCP (an empty host: all addresses).
	 * Both return false with err set.
	 */
	bool		(*listen) (uv_loop_t *loop, const char *address, const AuTransportEvents *events,
						   void *ctx, AuListener **out, char *err, size_t errlen);
	/* Failure after the start arrives as `closed` without `opened`. */
	bool		(*connect) (uv_loop_t *loop, const char *address, const AuTransportEvents *events,
							void *ctx, AuLink **out, char *err, size_t errlen);
} AuTransport;

extern const AuTransport au_transport_unix;
extern const AuTransport au_transport_tcp;

/* Stop listening; a Unix socket's file is removed. */
void		au_listener_close(AuListener *listener);

void	   *au_link_user(const AuLink *link);
/* The process at the other end, if that is on this machine and of our user;
 * else -1. */
long		au_link_peer_pid(const AuLink *link);

/* Memory to send from: fill it, then give it to au_link_send, which takes it
 * over.  NULL: out of memory. */
uint8_t    *au_link_buffer(size_t cap);
void		au_link_buffer_free(uint8_t *buffer);	/* one not given away */
void		au_link_send(AuLink *link, uint8_t *buffer, size_t len);

/* Off: offer nothing more.  On: reading goes on; what is buffered already is
 * offered by au_link_offer, which the caller calls when it is ready. */
void		au_link_set_reading(AuLink *link, bool on);
void		au_link_offer(AuLink *link);

/* Close when what was given to send has left; `closed` follows. */
void		au_link_close(AuLink *link);

#endif							/* AU_TRANSPORT_H */
