/* Loaded into ceph-mgr, keeps it from crashing on a Python of 3.12 or newer.
 *
 * When a monitor's answer arrives, ceph-mgr runs a module's callback on a thread of its own: it borrows the waiting
 * module thread's Python state to enter, makes a state for itself, switches to it, and afterwards switches back to the
 * borrowed one. Since Python 3.12 PyThreadState_Swap lets the interpreter lock go in between, and the module's thread,
 * woken by the callback, may go on and free that state first: a crash within seconds of `nfs export rm` in a loop.
 * Here such a thread leaves by its own state and never looks at the borrowed one again. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

#define NEXT(name) ((typeof(name) *)dlsym(RTLD_NEXT, #name))
#define DEPTH 16

void *PyThreadState_New(void *interpreter);
void *PyThreadState_Swap(void *state);
void PyThreadState_Delete(void *state);
void PyThreadState_DeleteCurrent(void);
void *PyEval_SaveThread(void);

static __thread void *fresh;      /* just made, not yet switched to */
static __thread void *own[DEPTH]; /* states that this thread made and switched to, innermost last */
static __thread int depth;
static __thread int leaving;      /* the switch back was left out; the innermost is about to be deleted */
static __thread int left;         /* it was deleted, and the interpreter lock has gone with it */

void *PyThreadState_New(void *interpreter)
{
	return fresh = NEXT(PyThreadState_New)(interpreter);
}

void *PyThreadState_Swap(void *state)
{
	if (state && state == fresh && depth < DEPTH) {
		own[depth++] = state;
		fresh = NULL;
	} else if (depth > 0 && state) {
		leaving = 1;
		return own[depth - 1];
	}
	return NEXT(PyThreadState_Swap)(state);
}

void PyThreadState_Delete(void *state)
{
	if (leaving && depth > 0 && state == own[depth - 1]) {
		depth--;
		leaving = 0;
		left = 1;
		PyThreadState_DeleteCurrent();
		return;
	}
	NEXT(PyThreadState_Delete)(state);
}

void *PyEval_SaveThread(void)
{
	if (left) {
		left = 0;
		return NULL;
	}
	return NEXT(PyEval_SaveThread)();
}
