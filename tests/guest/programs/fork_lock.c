/* The hang of rhbz-471613, comments 16 to 23: fork() in a process with threads, whose child waits for a lock for ever.
 *
 *     main                 holder                  forker                  child
 *     ----                 ------                  ------                  -----
 *     pthread_join()       lock
 *                                                  fork()
 *                          unlock                  waitpid()               lock: it is held here, by nobody
 */
#include <pthread.h>
#include <semaphore.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static sem_t held, forked;

static void *holder(void *unused)
{
	pthread_mutex_lock(&lock);
	sem_post(&held);
	sem_wait(&forked);
	pthread_mutex_unlock(&lock);
	return unused;
}

/* Deep, as what takes a lock in a child of fork() is: free() of an arena that another thread had locked, for one. */
static int __attribute__((noinline)) child_takes_lock(int depth)
{
	volatile int kept = depth;

	if (depth)
		return child_takes_lock(depth - 1) + kept;
	pthread_mutex_lock(&lock);
	return pthread_mutex_unlock(&lock) + kept;
}

static void __attribute__((noinline)) wait_for_child(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) != child)
		;
}

static void *forker(void *unused)
{
	pid_t child;

	sem_wait(&held);
	child = fork();
	if (!child)
		_exit(child_takes_lock(3));
	sem_post(&forked);
	wait_for_child(child);
	return unused;
}

int main(void)
{
	pthread_t holds, forks;

	sem_init(&held, 0, 0);
	sem_init(&forked, 0, 0);
	if (pthread_create(&holds, NULL, holder, NULL) || pthread_create(&forks, NULL, forker, NULL))
		return 3;
	pthread_join(holds, NULL);
	pthread_join(forks, NULL);
	return 0;
}
